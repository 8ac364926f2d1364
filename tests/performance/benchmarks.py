"""What `make bench` measures: each function builds one comparison, in the order of the table."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

from tests.performance.bench import Benchmark

TASKS, MEMBERS, STEPS = 4, 8, 8


@contextmanager
def transformer_rows() -> Iterator[list[int]]:
    """Counts the latents that the editor's transformer is asked about, call by call."""
    from components.editors.kontext import KontextEditor

    rows: list[int] = []
    velocity = KontextEditor.velocity

    def counted(editor: KontextEditor, x, sigma, condition):  # type: ignore[no-untyped-def]
        rows.append(len(x))
        return velocity(editor, x, sigma, condition)

    with patch.object(KontextEditor, "velocity", counted):
        yield rows


def rollout_of_a_group() -> Benchmark:
    """Steps before the SDE window: every member of a group on its own, against once a group.

    Summed over all places of the window; where it starts at the first step there is nothing to share.
    """
    import torch

    from components.editor_rl.train import RlJob, sample
    from components.editors.tiny import build

    job = RlJob(
        edits=Path(),
        output=Path(),
        editor="",
        reward="",
        iterations=1,
        algorithm="flow-grpo",
        shared_noise=True,
        members=MEMBERS,
        steps=STEPS,
    )
    alone = job.model_copy(update={"members": 1, "shared_noise": False})
    editor = build()
    side = editor.side
    sources = np.random.default_rng(0).integers(0, 256, size=(TASKS, side, side, 3), dtype=np.uint8)
    condition = editor.encode(["make the circle red"] * TASKS, sources)
    starts = range(job.window_range - job.window + 1)

    def plain() -> int:
        whole = condition.select(torch.arange(TASKS).repeat_interleave(MEMBERS))
        with transformer_rows() as rows:
            for start in starts:
                sample(alone, editor, whole, start, torch.Generator().manual_seed(0))
        return sum(rows)

    def ours() -> int:
        with transformer_rows() as rows:
            for start in starts:
                sample(job, editor, condition, start, torch.Generator().manual_seed(0))
        return sum(rows)

    return Benchmark("editor_rl: transformer passes of a rollout", plain, ours, target=1.12, counted=True)


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (rollout_of_a_group,)

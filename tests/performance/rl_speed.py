"""Online RL of the editor against plain Flow-GRPO: what is computed, and how long an iteration takes."""

import atexit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from unittest.mock import patch

from annotation.formats.edits_file import EditRow, read_edits
from annotation.simulation.scenes import write_edits
from components.editor_rl.settings import RlSettings
from components.editor_rl.windows import window
from tests.performance.bench import Benchmark

if TYPE_CHECKING:
    from components.editors.protocol import Editor

TASKS, MEMBERS, STEPS, ITERATIONS = 8, 8, 8, 3
FAST = RlSettings(
    algorithm="flow-grpo", tasks=TASKS, members=MEMBERS, steps=STEPS, window=2, window_range=4, shared_noise=True
)
"""A window of two steps in the first half of the trajectory."""


@cache
def rows() -> list[EditRow]:
    """As many drawn tasks as an iteration takes."""
    folder = TemporaryDirectory()
    atexit.register(folder.cleanup)
    write_edits(Path(folder.name), TASKS, 0)
    return list(read_edits(Path(folder.name)))


@contextmanager
def calls_of(editor: "Editor", method: str) -> Iterator[list[int]]:
    """The rows that a method of the editor is asked about, call by call."""
    asked: list[int] = []
    real = getattr(editor, method)

    def counted(first, *others):  # type: ignore[no-untyped-def]
        asked.append(len(first))
        return real(first, *others)

    with patch.object(editor, method, counted):
        yield asked


@cache
def rolled_out(method: str) -> tuple[int, int]:
    """Rows that a method of the editor is asked about by the rollouts of a few iterations: the plain way, and ours."""
    import torch

    from components.editor_rl.prompts import Prompts
    from components.editor_rl.rollout import SAMPLING, Counts, generators, sample
    from components.editor_rl.scoring import OracleJudge
    from components.editors.opening import open_editor
    from components.editors.protocol import joined
    from tests.performance.plain_flow_grpo import PlainFlowGrpo

    torch.set_num_threads(1)
    editor = open_editor("tiny-editor")
    prompts = Prompts(rows(), editor, kept=TASKS, seed=0)
    plain = PlainFlowGrpo(editor, rows(), OracleJudge(rows()), FAST)
    tasks = list(range(TASKS))
    with calls_of(editor, method) as plainly:
        for iteration in range(ITERATIONS):
            for member in range(MEMBERS):
                plain.sample(tasks, generators(FAST, iteration, [(task, member) for task in tasks], SAMPLING))
    with calls_of(editor, method) as ours:
        for iteration in range(ITERATIONS):
            condition = joined([known.condition for known in prompts.known(tasks)])
            sample(FAST, editor, condition, tasks, iteration, place(iteration), Counts())
    return sum(plainly), sum(ours)


def place(iteration: int) -> range:
    """The window of an iteration."""
    return window(FAST.window_kind, iteration, FAST.seed, size=FAST.window, reach=FAST.window_range)


def encodings() -> Benchmark:
    """Tasks encoded: each member of each iteration, against each task once."""
    return Benchmark(
        "editor_rl: tasks encoded in 3 iterations",
        lambda: rolled_out("encode")[0],
        lambda: rolled_out("encode")[1],
        target=MEMBERS * ITERATIONS,
        counted=True,
        same=lambda _, ours: bool(ours == TASKS),
    )


def shared_steps() -> Benchmark:
    """Latents that go through the network in rollouts: steps before the window a member each, against once a group."""
    before = sum(place(iteration).start for iteration in range(ITERATIONS))
    after = STEPS * ITERATIONS - before
    return Benchmark(
        "editor_rl: transformer passes of rollouts",
        lambda: rolled_out("velocity")[0],
        lambda: rolled_out("velocity")[1],
        target=1.2,
        counted=True,
        same=lambda _, ours: bool(ours == TASKS * (before + MEMBERS * after)),
    )


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (encodings, shared_steps)

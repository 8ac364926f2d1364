"""Editing: a benchmark's edits one by one against batches of one size, and what the text encoder is asked for."""

import atexit
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from editloop.data.picture_file import load_image
from editloop.evaluation.editor_suites.editing import EditorSampling, edit_file, make_edits
from editloop.evaluation.editor_suites.layouts import open_editor_suite
from tests.performance.bench import Benchmark

TASKS, BATCH, EDITS = 16, 8, 4
SAMPLING = EditorSampling(steps=4)
"""Few tasks and steps: 12 runs of it end within half a minute on an idle core."""
LARGEST_DIFFERENCE = 2
"""Between the pixels of both ways, 0..255: a batch adds in another order."""


def batched_edits() -> Benchmark:
    """Edits of ImgEdit-Bench's layout on drawn scenes, with files and all."""
    from editloop.data.edits_file import read_edits
    from editloop.models.editors.opening import open_editor
    from editloop.studies.world.scenes import write_edits

    temporary = TemporaryDirectory()
    atexit.register(temporary.cleanup)
    data, edits = Path(temporary.name), Path(temporary.name) / "edits"
    write_edits(data, TASKS, 0)
    tasks = {
        str(number): {"id": str(row.source.relative_to(data)), "prompt": row.instruction, "edit_type": "add"}
        for number, row in enumerate(read_edits(data))
    }
    (data / "basic_edit.json").write_text(json.dumps(tasks))
    suite, editor = open_editor_suite("imgedit-bench", data), open_editor("tiny-editor", device="cpu")
    calls = iter(range(10_000))

    def pictures(batch: int) -> NDArray[np.int64]:
        folder = edits / str(next(calls))
        make_edits(suite, editor, "", folder, SAMPLING, batch=batch)
        return np.stack([np.asarray(load_image(edit_file(folder, task)), dtype=np.int64) for task in suite.tasks])

    return Benchmark(
        f"benchmark of editors: {TASKS} edits one by one and in batches",
        lambda: pictures(1),
        lambda: pictures(BATCH),
        target=1.5,
        same=lambda plain, ours: bool(abs(plain - ours).max() <= LARGEST_DIFFERENCE),
    )


def encoded_texts() -> Benchmark:
    """Texts that OmniGen2's text encoder reads for some edits of each task.

    The published pipeline's calls, one an edit, read the instruction and the negative one each time.
    """
    from editloop.models.editors.omnigen2 import OmniGen2Editor
    from editloop.models.editors.sampling import edit
    from tests.tiny_editors import build_tiny_editor

    editor = build_tiny_editor("omnigen2")
    assert isinstance(editor, OmniGen2Editor)
    rng = np.random.default_rng(0)
    sources = rng.integers(0, 256, (TASKS, 32, 32, 3), dtype=np.uint8)
    planned = [(task, seed) for task in range(TASKS) for seed in range(EDITS)]
    texts: list[int] = []
    encoder = editor.pipeline.mllm.model
    encoder.register_forward_pre_hook(
        lambda _module, _arguments, inputs: texts.append(len(inputs["input_ids"])), with_kwargs=True
    )
    made: dict[bool, NDArray[np.int64]] = {}

    def read(*, apart: bool) -> float:
        texts.clear()
        made[apart] = np.stack(
            [picture for part in ([[one] for one in planned] if apart else [planned]) for picture in pictures(part)]
        ).astype(np.int64)
        if len(made) == 2:
            assert abs(made[True] - made[False]).max() <= LARGEST_DIFFERENCE
        return float(sum(texts))

    def pictures(part: list[tuple[int, int]]) -> list[NDArray[np.uint8]]:
        editor.__dict__.pop("negative", None)
        instructions = [f"make the circle number {task}" for task, _ in part]
        seeds = [seed for _, seed in part]
        return edit(editor, instructions, [sources[task] for task, _ in part], seeds=seeds, steps=2, guidance=3.0)

    return Benchmark(
        f"editors: texts that OmniGen2's encoder reads, {EDITS} edits of each of {TASKS} tasks",
        lambda: read(apart=True),
        lambda: read(apart=False),
        target=7.5,
        counted=True,
    )


BENCHMARKS = (batched_edits, encoded_texts)

"""An editor on a benchmark: edits by the tiny editor one by one, against batches of one size."""

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

TASKS, BATCH = 16, 8
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


BENCHMARKS = (batched_edits,)

"""200,000 training pictures held against 3,000 of a suite, on all cores.

python -m tests.performance.leak_scale
"""

import io
import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from editloop.content import complete_folder, sha256_bytes
from editloop.datasets.shards import ShardWriter
from editloop.datasets.splits import SPLITS
from editloop.evaluation.leaks.leaks import find_leaks
from editloop.evaluation.suites.suite import ALL, Item, PictureRef, Suite
from tests.performance.bench import peak_megabytes

TASKS, CANDIDATES = 33_334, 4
PICTURES = TASKS * (2 + CANDIDATES)
ITEMS, EDITS = 1000, 2
PLANTED = 10
SIDE, SHAPES = 64, 8
LONGEST_SECONDS, MOST_MEGABYTES = 120, 1000


def checking(tasks: int = TASKS) -> dict[str, float]:
    """Look for the leaks of a suite of 3,000 pictures in so many generated tasks, 6 pictures each, in a process of its
    own (its helpers' memory is not counted).

    Returns {"seconds", "megabytes", "tasks" (that leak: the first PLANTED)}; making the pictures is not counted.
    """
    with tempfile.TemporaryDirectory() as place:
        write_training(Path(place) / "dataset", tasks)
        command = [sys.executable, "-m", "tests.performance.leak_scale", f"{place}/dataset"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def picture(seed: int) -> bytes:
    """Smooth shapes of random colours: as unlike another seed's as two photographs are."""
    shapes = np.random.default_rng(seed).integers(0, 256, (SHAPES, SHAPES, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(shapes).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(out, "PNG", compress_level=1)
    return out.getvalue()


def write_training(target: Path, tasks: int) -> None:
    with complete_folder(target, {"seed": 0}) as folder:
        for split in SPLITS:
            with closing(ShardWriter(folder, split, 256)) as writer:
                for task in range(tasks if split == "train" else 0):
                    source, right, *edits = (picture(6 * task + place) for place in range(2 + CANDIDATES))
                    writer.add(
                        [
                            {
                                "task_id": f"{task:016x}",
                                "name": str(task),
                                "task_type": "add",
                                "split": split,
                                "instruction": f"Edit {task % 500}.",
                                "source": source,
                                "target": right,
                                "candidate_id": f"{place}",
                                "image": edit,
                                "editor": "e",
                                "if_mean": 1.0,
                                "vq_mean": 1.0,
                                "ratings": 1,
                            }
                            for place, edit in enumerate(edits)
                        ],
                        [],
                    )


def suite() -> Suite:
    """New pictures, but for the sources of the first PLANTED items, which are those of the first tasks."""

    def at(seed: int) -> PictureRef:
        data = picture(seed)
        return PictureRef(str(seed), lambda: sha256_bytes(data), lambda: data)

    new = PICTURES * 2
    items = tuple(
        Item(
            str(number),
            str(number),
            ALL,
            f"Edit {number}.",
            ("left", "right"),
            source=at(6 * number if number < PLANTED else new + 3 * number),
            edits=tuple(at(new + 3 * number + place) for place in range(1, 1 + EDITS)),
        )
        for number in range(ITEMS)
    )
    return Suite("genai-bench", "ties", "0" * 64, items)


def _check(training: Path) -> dict[str, float]:
    asked = suite()
    began = time.perf_counter()
    found = find_leaks(training, asked)
    seconds = time.perf_counter() - began
    assert found.task_ids == {f"{task:016x}" for task in range(PLANTED)}, sorted(found.task_ids)
    return {"seconds": seconds, "megabytes": peak_megabytes(), "tasks": len(found.task_ids)}


if __name__ == "__main__":
    print(json.dumps(_check(Path(sys.argv[1])) if sys.argv[1:] else checking()))

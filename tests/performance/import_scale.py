"""Import of EditReward's published layout: parquet with PNG files of 512 pixels inside, read, stored and rated.

    python -m tests.performance.import_scale            # 3,000 rows, in a process of its own
    python -m tests.performance.import_scale 20000      # so many rows

The plain way decodes and encodes such pictures on as many threads, and does nothing else. The two are compared by the
time of the cores and not by the clock, so that a busy machine does not decide.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from annotation.formats.editreward_import import import_pairs
from editloop.data.picture_file import read_picture
from editloop.data.png_encoding import encode_png
from tests.performance.bench import Benchmark, Scale, peak_megabytes

SIDE, ROWS, PAIRS_OF_A_TASK, ROW_GROUP = 512, 3000, 2, 100
"""Of each task's three edits two pairs: four pictures for two rows."""
RECODED = 400
"""Pictures of the plain way: few enough to hold them, for the time of one does not depend on how many there are."""
LONGEST_SECONDS, MOST_MEGABYTES = (PAIRS_OF_A_TASK + 2) * ROWS / PAIRS_OF_A_TASK / 60, 1500
"""60 pictures a second."""
RATIO = 1 / 1.3
"""At most 1.3 times as long as decoding and encoding alone, by the same encoder. On an idle machine it was 1.27
at 2,000 rows and at 20,000; on a busy one 1.3 to 1.4."""


@cache
def base() -> np.ndarray[Any, np.dtype[np.float64]]:
    """A smooth scene under a camera's noise."""
    rng = np.random.default_rng(0)
    shapes = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    smooth = np.asarray(shapes.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float64)
    return smooth + rng.normal(0, 4, smooth.shape)


@lru_cache(maxsize=2 * (PAIRS_OF_A_TASK + 2))
def picture(number: int) -> bytes:
    """A PNG file that no other number has. Those of the last tasks are kept."""
    moved = np.roll(base(), divmod(number, SIDE), (0, 1))
    return encode_png(moved.clip(0, 255).astype(np.uint8))


def rows(count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        task, pair = divmod(number, PAIRS_OF_A_TASK)
        sides: dict[str, Any] = {}
        for side, place, (following, quality) in (
            ("left", 1 + pair, (4.0 - pair, 3.0)),
            ("right", 2 + pair, (1.0, 1.0)),
        ):
            sides |= {
                f"{side}_output_image": {"bytes": picture((PAIRS_OF_A_TASK + 2) * task + place), "path": None},
                f"{side}_model": f"editor-{place}",
                f"{side}_overall_score": following + quality,
                f"{side}_instruction_following_score": following,
                f"{side}_quality_aesthetic_score": quality,
            }
        source = {"bytes": picture((PAIRS_OF_A_TASK + 2) * task), "path": None}
        yield {"instruction": f"Edit {task}.", "source_img": source, "vote_type": "leftvote"} | sides


def write_rows(path: Path, count: int) -> None:
    writer = None
    pending: list[dict[str, Any]] = []
    for row in rows(count):
        pending.append(row)
        if len(pending) == ROW_GROUP:
            table = pa.Table.from_pylist(pending)
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
            pending = []
    if pending:
        table = pa.Table.from_pylist(pending)
        writer = writer or pq.ParquetWriter(path, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()


def recoding(count: int = RECODED) -> float:
    """The milliseconds of a core that decoding and encoding a picture take, on a thread a core."""
    files = list(map(picture, range(count)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        used = time.process_time()
        list(pool.map(_recode, files))
    return 1000 * (time.process_time() - used) / count


def _recode(file: bytes) -> int:
    return len(encode_png(np.asarray(read_picture(file, "picture"))))


def speed() -> Benchmark:
    name = f"import: ms of a core for a picture of {ROWS:,} pairs, against decoding and encoding it alone"
    return Benchmark(name, recoding, lambda: importing()["core_ms"], RATIO, counted=True)


def importing(count: int = ROWS) -> dict[str, float]:
    """Import so many rows in a process of its own: {"seconds", "megabytes" (its peak), "pictures_a_second", and
    "core_ms": milliseconds of a core for a picture}."""
    with tempfile.TemporaryDirectory() as place:
        write_rows(Path(place) / "rows.parquet", count)
        command = [sys.executable, "-m", "tests.performance.import_scale", "--here", place]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _import(folder: Path) -> dict[str, float]:
    began, used = time.perf_counter(), time.process_time()
    import_pairs(folder / "rows.parquet", folder / "candidates", folder / "judgements")
    seconds = time.perf_counter() - began
    pictures = sum(1 for _ in (folder / "candidates" / "images").iterdir())
    core_ms = 1000 * (time.process_time() - used) / pictures
    figures = {"seconds": seconds, "megabytes": peak_megabytes(), "pictures_a_second": pictures / seconds}
    return figures | {"core_ms": core_ms}


def scale() -> Scale:
    name = f"import scale: {ROWS:,} pairs of 512 px as published, 60 pictures a second"
    return Scale(name, importing, LONGEST_SECONDS, MOST_MEGABYTES)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(_import(Path(sys.argv[2]))))
    else:
        print(json.dumps(importing(*map(int, sys.argv[1:]))))

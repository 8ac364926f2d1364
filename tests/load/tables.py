"""200,000 pairs and a million rows of candidates through dataset, splits, leaks and tables of scores.

    python -m tests.load.tables JOB FOLDER     # one job in this process, as `measure` calls it

Each job runs in a process of its own, at a tenth of its size and at its size. Where bounded memory is claimed, both
must take as much; the choice of fine-tuning data may take CHOICE_BYTES a row more.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from editloop.data.picture_file import png_bytes
from editloop.datasets.shards import shards
from editloop.datasets.splits import SPLITS
from editloop.models.judge_protocol import AxisScore, EditGroup, Score
from tests.load.measurement import MOST_GROWTH, SPARE_MEGABYTES, Row
from tests.performance import dataset_scale, leak_scale
from tests.performance.bench import peak_megabytes

PAIRS_OF_A_TASK = 6
"""Of four candidates."""
DATASET_TASKS = 33_334
LEAK_TASKS = leak_scale.TASKS
SCORED_TASKS, CANDIDATES = 250_000, 4
POOL = 1000
"""Different pictures of the scored edits."""
SIDE = 16
CHOICE_BYTES = 200
"""Memory of a row that the choice of fine-tuning data may take beyond what other jobs may: three numbers, two digests,
and their sorting."""
Figures = dict[str, float]


def write_edits(folder: Path, tasks: int) -> None:
    """An edits file of so many tasks with four candidates each, on pictures of a pool.

    Args:
        folder: The folder to write.
        tasks: Number of tasks.
    """
    rng = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    for number in range(POOL):
        picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        (folder / "images" / f"{number}.png").write_bytes(png_bytes(picture))
    with (folder / "edits.jsonl").open("w") as stream:
        for task in range(tasks):
            names = [f"images/{number}.png" for number in rng.choice(POOL, 1 + CANDIDATES, replace=False)]
            candidates = [{"image": name, "editor": f"editor-{place}"} for place, name in enumerate(names[1:])]
            line = {"id": f"task-{task}", "instruction": f"edit {task}", "source": names[0], "candidates": candidates}
            stream.write(json.dumps(line) + "\n")


class BrightnessJudge:
    """A judge that costs next to nothing."""

    name, version, axes = "brightness", "1" * 64, ("if", "vq")

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        return [[self.score(float(edit[0, 0, 0])) for edit in group.edits] for group in groups]

    def score(self, value: float) -> Score:
        belief = AxisScore(value, 1.0)
        return Score({"if": belief, "vq": belief}, belief, value, value)


def score(folder: Path) -> Figures:
    """Score the edits: what is measured is reading, and the table."""
    from editloop.scoring.score_file import ScoringSettings, score_edits

    settings = ScoringSettings(best_of=CANDIDATES)
    summary = score_edits(BrightnessJudge(), folder / "edits.jsonl", folder / "scores.parquet", settings)
    return {"rows": summary.edits, "missing": summary.missing}


def take_best(folder: Path) -> Figures:
    """Keep the best candidate of each task."""
    from editloop.scoring.best_of import keep_best

    counts = keep_best(folder / "edits.jsonl", folder / "scores.parquet", CANDIDATES, folder / "best")
    return {"rows": counts.tasks, "missing": counts.without}


def choose(folder: Path) -> Figures:
    """Choose the better half of the tasks for fine-tuning."""
    from editloop.scoring.curation.curation import choose_triples
    from editloop.scoring.curation.settings import CurateSettings
    from editloop.scoring.curation.triples import read_scored

    scored = read_scored(folder / "edits.jsonl", folder / "scores.parquet")
    selection = choose_triples(scored, CurateSettings())
    return {"rows": len(selection.kept), "missing": 0}


def build(folder: Path) -> Figures:
    """Build the dataset of 12 judgements a task, and read how its pairs are split."""
    from editloop.datasets.build import write_dataset

    written = write_dataset(folder / "judgements", folder / "candidates", folder / "dataset")
    return {"rows": written["pairs"], "missing": 0}


JOBS: Mapping[str, Callable[[Path], Figures]] = {"score": score, "best": take_best, "choose": choose, "build": build}


def apart(job: str, folder: Path) -> Figures:
    """Run a job in a process of its own.

    Args:
        job: A key of JOBS.
        folder: Its folder.

    Returns:
        Its figures, with "seconds" and "megabytes", the largest resident size of that process.
    """
    command = [sys.executable, "-m", "tests.load.tables", job, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def pairs_by_split(dataset: Path) -> dict[str, int]:
    """The number of pairs in each split, and a check that no task is in two of them.

    Args:
        dataset: The dataset.
    """
    import pyarrow.parquet as parquet

    counts, tasks = dict.fromkeys(SPLITS, 0), dict[str, set[str]]()
    for split in SPLITS:
        for path in shards(dataset, "pairs", split):
            counts[split] += parquet.ParquetFile(path).metadata.num_rows
            tasks.setdefault(split, set()).update(parquet.read_table(path, columns=["task_id"])["task_id"].to_pylist())
    names = [name for split in tasks.values() for name in split]
    assert len(names) == len(set(names)), "a task is in two splits"
    return counts


def measure_dataset(scale: float) -> list[Row]:
    """Build a dataset at a tenth of its size and at its size.

    Args:
        scale: Share of the full size.
    """
    tasks = max(40, round(scale * DATASET_TASKS))
    figures, splits = list[Figures](), dict[str, int]()
    for size in (tasks // 10, tasks):
        with tempfile.TemporaryDirectory(prefix="editloop-load-") as temporary:
            folder = Path(temporary)
            dataset_scale.write_candidates(folder / "candidates", size)
            dataset_scale.write_judgements(folder / "judgements", folder / "candidates")
            figures.append(apart("build", folder))
            splits = pairs_by_split(folder / "dataset")
    small, large = figures
    counted = sum(splits.values())
    extra: dict[str, float | str] = {"pairs by split": ", ".join(f"{name} {count:,}" for name, count in splits.items())}
    return [
        Row(
            "dataset",
            f"dataset with its splits: {large['rows']:,.0f} pairs",
            _figures(small, large) | extra,
            counted == large["rows"] and _is_linear(small, large, 10),
        )
    ]


def measure_leaks(scale: float) -> list[Row]:
    """Look for leaks of a suite at a tenth of the training pictures and in all of them.

    Args:
        scale: Share of the full size.
    """
    tasks = max(100, round(scale * LEAK_TASKS))
    small, large = (leak_scale.checking(size) for size in (tasks // 10, tasks))
    pictures = tasks * (2 + leak_scale.CANDIDATES)
    holds = large["tasks"] == leak_scale.PLANTED and small["tasks"] == min(leak_scale.PLANTED, tasks // 10)
    return [
        Row(
            "leaks",
            f"leaks: {pictures:,} training pictures against {leak_scale.ITEMS * (1 + leak_scale.EDITS):,} of a suite",
            _figures(small, large) | {"planted leaks found": f"{large['tasks']:.0f} of {leak_scale.PLANTED}"},
            holds and _is_linear(small, large, 10),
        )
    ]


def measure_scores(scale: float) -> list[Row]:
    """Write a table of scores and read it both ways, at a tenth of its rows and at all.

    Args:
        scale: Share of the full size.
    """
    tasks = max(40, round(scale * SCORED_TASKS))
    names = {
        "score": f"table of scores: {CANDIDATES * tasks:,} rows",
        "best": f"best of {CANDIDATES}: {CANDIDATES * tasks:,} rows read",
        "choose": f"choice for fine-tuning: {CANDIDATES * tasks:,} rows read",
    }
    figures: dict[str, list[Figures]] = {job: [] for job in names}
    for size in (tasks // 10, tasks):
        with tempfile.TemporaryDirectory(prefix="editloop-load-") as temporary:
            folder = Path(temporary)
            write_edits(folder, size)
            for job in names:
                figures[job].append(apart(job, folder))
    rows = []
    for job, name in names.items():
        small, large = figures[job]
        expected = CANDIDATES * tasks if job == "score" else tasks
        holds = large["rows"] == expected and not large["missing"] and _is_linear(small, large, 10)
        most = MOST_GROWTH * small["megabytes"] + SPARE_MEGABYTES
        if job == "choose":  # which holds the numbers of all that it chooses from
            most += CHOICE_BYTES * CANDIDATES * tasks / 2**20
        holds = holds and large["megabytes"] <= most
        rows.append(Row("scores", name, _figures(small, large), holds))
    return rows


def _is_linear(small: Figures, large: Figures, times: float) -> bool:
    """Whether so many times the work takes at most twice as many times the seconds; a second is anybody's."""
    return large["seconds"] <= 2 * times * small["seconds"] + 1


def _figures(small: Figures, large: Figures) -> dict[str, float | str]:
    return {
        "seconds": round(large["seconds"], 1),
        "seconds at a tenth": round(small["seconds"], 1),
        "MB": round(large["megabytes"]),
        "MB at a tenth": round(small["megabytes"]),
        "load average": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    began = time.perf_counter()
    counted = JOBS[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(counted | {"seconds": time.perf_counter() - began, "megabytes": peak_megabytes()}))

"""A dataset of 200,000 judgements: from the judgements and candidates to shards, pairs, split and manifest.

python -m tests.performance.dataset_scale
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from editloop.content import complete_folder, write_json
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from editloop.datasets.build import write_dataset
from tests.performance.bench import peak_megabytes

TASKS, CANDIDATES, OVERLAP, PEOPLE = 16_667, 4, 3, 20
JUDGEMENTS = TASKS * CANDIDATES * OVERLAP
LONGEST_SECONDS, MOST_MEGABYTES = 120, 1000
SIDE = 16


def building(tasks: int = TASKS) -> dict[str, float]:
    """Build a dataset of so many generated tasks, 12 judgements each, in a process of its own.

    Returns {"seconds", "megabytes" (largest resident size of that process), "pairs"}; making its inputs is not counted.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_candidates(folder / "candidates", tasks)
        write_judgements(folder / "judgements", folder / "candidates")
        done = subprocess.run(
            [sys.executable, "-m", "tests.performance.dataset_scale", place],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def write_candidates(target: Path, tasks: int) -> None:
    """A candidates folder of so many tasks with random small pictures, all different."""
    rng = np.random.default_rng(0)
    with complete_folder(target) as folder, (folder / "tasks.jsonl").open("w") as lines:
        (folder / "images").mkdir()
        for number in range(tasks):
            source, right, *edits = (_picture(folder, rng) for _ in range(2 + CANDIDATES))
            name = task_id(source, "Edit it.")
            made = tuple(
                Candidate(candidate_id=candidate_id(name, image), image=image, editor=f"editor-{place}")
                for place, image in enumerate(edits)
            )
            task = EditTask(
                task_id=name, name=str(number), instruction="Edit it.", source=source, target=right, candidates=made
            )
            lines.write(task.model_dump_json(by_alias=True) + "\n")


def _picture(folder: Path, rng: np.random.Generator) -> str:
    picture = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    return store_png(picture, folder / "images")


def write_judgements(target: Path, candidates: Path) -> None:
    """Everybody has a noise of their own around a candidate's true level."""
    rng = np.random.default_rng(1)
    noise = rng.uniform(0.2, 1.0, PEOPLE)
    rows = []
    for number, line in enumerate((candidates / "tasks.jsonl").open()):
        task = EditTask.model_validate_json(line)
        level = rng.uniform(1, 4, (CANDIDATES, 1, 2))
        people = rng.choice(PEOPLE, OVERLAP, replace=False)
        seen = np.rint(level + rng.normal(0, 1, (CANDIDATES, OVERLAP, 2)) * noise[people, None]).clip(1, 4).astype(int)
        rows += [
            {
                "kind": "task",
                "task_id": task.task_id,
                "candidate_id": candidate.candidate_id,
                "annotator": f"annotator-{who}",
                "if": int(seen[place, turn, 0]),
                "vq": int(seen[place, turn, 1]),
                "position": place,
                "seconds": 20.0,
                "annotation_id": OVERLAP * number + turn,
                "created_at": "2026-01-05T10:00:00Z",
            }
            for turn, who in enumerate(people)
            for place, candidate in enumerate(task.candidates)
        ]
    with complete_folder(target) as folder:
        (folder / "judgements.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        write_json(folder / "summary.json", {"campaign_key": "scale"})


def _build(folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    found = write_dataset(folder / "judgements", folder / "candidates", folder / "dataset")
    return {"seconds": time.perf_counter() - began, "megabytes": peak_megabytes(), "pairs": found["pairs"]}


if __name__ == "__main__":
    print(json.dumps(_build(Path(sys.argv[1])) if sys.argv[1:] else building()))

"""A campaign of 10,000 tasks with 4 candidates each, opened in a real Label Studio: seconds, and memory on our side.

python -m tests.performance.annotation_scale
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.annotate.declaration import AnnotateParameters
from editloop.content import complete_folder
from editloop.data.picture_file import store_png
from editloop.data.vocabulary import Candidate, EditTask, candidate_id, task_id
from infra.services import start_services, stop_services
from tests.performance.bench import peak_megabytes

TASKS, CANDIDATES = 10_000, 4
SHARE = 0.03
"""Of gold, and of repeats."""
LONGEST_SECONDS, MOST_MEGABYTES = 300, 500
SIDE = 24


def opening(tasks: int = TASKS) -> dict[str, float]:
    """Open a campaign of so many tasks in a Label Studio of its own, and open it again.

    Returns {"seconds", "megabytes" (largest resident size of the process that opens), "again_seconds", "tasks"}; the
    Label Studio and the candidates are made before and not counted.
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        draw_candidates(folder / "candidates", tasks)
        home = folder / "services"
        services = start_services(home)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.performance.annotation_scale", str(folder)],
                env={**os.environ, **services.environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        finally:
            stop_services(home)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def draw_candidates(target: Path, tasks: int, seed: int = 0) -> None:
    """A candidates folder of random small pictures, all different; every task has a target."""
    rng = np.random.default_rng(seed)

    def picture(folder: Path) -> str:
        drawn = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
        return store_png(drawn, folder / "images")

    with complete_folder(target) as folder, (folder / "tasks.jsonl").open("w") as lines:
        (folder / "images").mkdir()
        for number in range(tasks):
            source, instruction = picture(folder), f"Move the {number}th thing to the left."
            task = task_id(source, instruction)
            made = [picture(folder) for _ in range(CANDIDATES)]
            row = EditTask(
                task_id=task,
                name=f"task-{number}",
                instruction=instruction,
                source=source,
                target=picture(folder),
                candidates=tuple(
                    Candidate(candidate_id=candidate_id(task, image), image=image, editor=f"editor-{place}")
                    for place, image in enumerate(made)
                ),
            )
            lines.write(row.model_dump_json() + "\n")


def _open(folder: Path) -> dict[str, Any]:
    from components.annotate.stage import run_annotate

    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        found = run_annotate(
            folder / "candidates",
            folder / "campaign",
            AnnotateParameters(name="scale", annotators=["ada", "bo", "chi"], gold_share=SHARE, repeat_share=SHARE),
        )
        seconds.append(time.perf_counter() - began)
    megabytes = peak_megabytes()
    return {"seconds": seconds[0], "megabytes": megabytes, "again_seconds": seconds[1], "tasks": found["tasks"]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_open(Path(sys.argv[1]))))
    else:
        measured = opening()
        holds = measured["seconds"] < LONGEST_SECONDS and measured["megabytes"] < MOST_MEGABYTES
        print(json.dumps(measured | {"holds": holds}, indent=2))

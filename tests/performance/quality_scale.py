"""The quality report of 100,000 generated judgements, from the folder to the page: seconds, and memory.

python -m tests.performance.quality_scale
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from infra.content import complete_folder, write_json

JUDGEMENTS, ANNOTATORS, OVERLAP, PLACES = 100_000, 12, 3, 4
LONGEST_SECONDS, MOST_MEGABYTES = 60, 1000


def reporting(judgements: int = JUDGEMENTS) -> dict[str, float]:
    """Report on at least so many judgements of tasks (repeats and gold are more) in a process of its own.

    Returns {"seconds", "megabytes" (its largest resident size), "judgements", "checks"}.
    """
    with tempfile.TemporaryDirectory() as place:
        draw_judgements(Path(place), judgements)
        done = subprocess.run(
            [sys.executable, "-m", "tests.performance.quality_scale", place],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def draw_judgements(folder: Path, judgements: int) -> None:
    """What stages collect and candidates would have left: `folder`/judgements and `folder`/candidates/tasks.jsonl."""
    from tests.generated_campaign import Character, campaign, honest

    rng = np.random.default_rng(0)
    characters = {f"honest-{k:02d}": honest(rng) for k in range(ANNOTATORS - 2)}
    characters |= {"spammer": Character(random_from=0), "drifting": Character(drift=-1.2)}
    made = campaign(characters, tasks=-(-judgements // (OVERLAP * PLACES)), places=PLACES, overlap=OVERLAP)
    with complete_folder(folder / "judgements") as out:
        for name, rows in (("judgements", made.judgements), ("checks", made.checks), ("pages", made.pages)):
            _write(out / f"{name}.jsonl", rows)
        _write(out / "cannot.jsonl", [])
        write_json(out / "summary.json", {"campaign": "generated"})
    (folder / "candidates").mkdir()
    _write(folder / "candidates" / "tasks.jsonl", made.tasks)


def _write(path: Path, rows: Iterable[BaseModel]) -> None:
    with path.open("w") as lines:
        lines.writelines(row.model_dump_json(by_alias=True) + "\n" for row in rows)


def _report(folder: Path) -> dict[str, float]:
    from pipelines.campaign_report import kept_report, write_report

    start = time.perf_counter()
    report = kept_report(folder / "judgements", folder / "candidates")
    write_report(report, folder / "report")
    return {
        "seconds": time.perf_counter() - start,
        "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "judgements": report.quality["counts"]["judgements"],
        "checks": report.quality["counts"]["checks"],
    }


if __name__ == "__main__":
    print(json.dumps(_report(Path(sys.argv[1])) if sys.argv[1:] else reporting(), indent=None))

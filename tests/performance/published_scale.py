"""Imports of published rows at their published numbers: 97,300 conversations of EditScore-Reward-Data, in one JSON list
of half a gigabyte, and 110,000 prompts of EditScore-RL-Data. Few pictures, so that the rows themselves are measured.

    python -m tests.performance.published_scale editscore        # or editscore-rl, in this process
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from editloop.data.published_edits import import_published_edits
from editloop.training.edit_score.published_conversations import import_conversations
from tests.performance.bench import Scale, peak_megabytes
from tests.performance.import_scale import picture

CONVERSATIONS, PROMPTS, PICTURES = 97_300, 110_000, 300
WORDING = "x y " * 1100
"""As long as a published prompt."""
LONGEST_SECONDS, MOST_MEGABYTES = 180, 220
"""Measured: 49 and 26 s on a quiet machine, 88 and 80 s on a busy one; at most 187 MB, of which libraries take 142."""


def write_pictures(folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for number in range(PICTURES):
        (folder / "images" / f"{number}.png").write_bytes(picture(number))


def write_conversations(folder: Path) -> None:
    with (folder / "reward.json").open("w") as stream:
        for number in range(CONVERSATIONS):
            half = PICTURES // 2
            names = [f"images/{number % half}.png", f"images/{half + number % half}.png"][number % 2 :]
            prompt = f"{'<image>' * len(names)}{WORDING}Editing instruction: do {number}"
            answer = json.dumps({"reasoning": "word " * 100, "score": [number % 26, 3]})
            turns = [{"from": "human", "value": prompt}, {"from": "gpt", "value": answer}]
            stream.write((",\n" if number else "[") + json.dumps({"conversations": turns, "images": names}))
        stream.write("]")


def write_prompts(folder: Path) -> None:
    with (folder / "rl.jsonl").open("w") as stream:
        for number in range(PROMPTS):
            row = {"task_type": "style", "instruction": f"As style {number}"}
            stream.write(json.dumps(row | {"input_images": [f"images/{number % PICTURES}.png"]}) + "\n")


def importing(form: str) -> dict[str, float]:
    """Import the rows of a format in this process: {"seconds", "megabytes" (its peak)}."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "data"
        write_pictures(folder)
        (write_conversations if form == "editscore" else write_prompts)(folder)
        began = time.perf_counter()
        if form == "editscore":
            import_conversations(folder, Path(place) / "out")
        else:
            import_published_edits(folder, "editscore-rl", Path(place) / "out")
        return {"seconds": time.perf_counter() - began, "megabytes": peak_megabytes()}


def importing_apart(form: str) -> dict[str, float]:
    """`importing` in a process of its own."""
    command = [sys.executable, "-m", "tests.performance.published_scale", form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def scales() -> tuple[Scale, Scale]:
    return (
        Scale(
            f"published conversations: {CONVERSATIONS:,} in a list of 0.5 GB about {PICTURES} pictures",
            partial(importing_apart, "editscore"),
            LONGEST_SECONDS,
            MOST_MEGABYTES,
        ),
        Scale(
            f"published prompts: {PROMPTS:,} of {PICTURES} pictures",
            partial(importing_apart, "editscore-rl"),
            LONGEST_SECONDS,
            MOST_MEGABYTES,
        ),
    )


if __name__ == "__main__":
    print(json.dumps(importing(sys.argv[1])))

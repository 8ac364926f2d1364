"""Reads EditReward-Compass (arXiv 2605.13062): pairs of edits on one of three dimensions, preferred first, or a tie."""

from pathlib import Path
from typing import Any

from editloop.evaluation.suites.hub_rows import read_records
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import AxisName, Item, Label, pair_item

FILE = "reward_eval.json"
DIMENSIONS: dict[str, AxisName] = {"IA": "prompt_following", "VC": "consistency", "VQ": "quality"}
"""Axes by dimension: instruction adherence, visual consistency, visual quality."""
WORDS: dict[str, Label] = {"preference": "left", "tie": "tie"}
TIE_BELOW = 1e-5
"""Scores of a tie that differ by less are right, as published."""


def read_editreward_compass(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items, in the order of the rows. `left` is the winner, the slice is the dimension.

    A key is the row's index from 0. Of a tie, the winner and the loser are in any order.

    Args:
        data: Folder with reward_eval.json, or such a file.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There is no file, or it cannot be read.
    """
    path = data if data.is_file() else data / FILE
    items = (_item(path.name, number, row, loader, faults) for number, row in enumerate(read_records(path)))
    return [item for item in items if item]


def _item(file: str, number: int, row: dict[str, Any], loader: PictureLoader, faults: list[str]) -> Item | None:
    name = f"{file} row {number}"
    dimension, label, prompt = row.get("dimension"), row.get("label"), row.get("prompt")
    wrong = [
        f"{name}: {fault}"
        for fault, is_faulty in (
            (f"dimension {dimension!r}; there are {', '.join(DIMENSIONS)}", dimension not in DIMENSIONS),
            (f"label {label!r}; there are {', '.join(WORDS)}", label not in WORDS),
            ("no prompt", not isinstance(prompt, str)),
        )
        if is_faulty
    ]
    faults += wrong
    pictures = [loader.file(str(row.get(column) or ""), name) for column in ("source_image", "winner", "loser")]
    if wrong or not all(pictures):
        return None
    readable = [picture for picture in pictures if picture]
    return pair_item(str(number), WORDS[str(label)], str(prompt), readable, str(dimension), DIMENSIONS[str(dimension)])

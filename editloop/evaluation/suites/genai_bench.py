"""Reads the image editing part of GenAI-Bench: rows are pairs with one person's vote, one of four words."""

from pathlib import Path

from editloop.evaluation.suites.hub_rows import HubRow, read_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import Item, Label, pair_item

VOTES: dict[str, Label] = {"leftvote": "left", "rightvote": "right", "tievote": "tie", "bothbad_vote": "both_bad"}
COLUMNS = ("instruct_prompt", "vote_type")
PICTURES = ("source_image", "left_output_image", "right_output_image")
KEYS = ("key", "id", "uid")
"""Columns that may hold a row's key. The published rows have none of them; their index from 0 is the key."""


def read_genai_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items, in the order of the rows.

    Args:
        data: The dataset's folder or file.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There are no files or several splits, or a file cannot be read or lacks a column.
    """
    items = (_item(row, faults) for row in read_rows(data, COLUMNS, PICTURES, loader))
    return [item for item in items if item]


def _item(row: HubRow, faults: list[str]) -> Item | None:
    vote, instruction = row.values["vote_type"], row.values["instruct_prompt"]
    if vote not in VOTES:
        faults.append(f"{row.name}: vote_type {vote!r}; there are {', '.join(VOTES)}")
    if not isinstance(instruction, str):
        faults.append(f"{row.name}: no instruct_prompt")
    source, left, right = (row.pictures[column][0] for column in PICTURES)
    if vote not in VOTES or not isinstance(instruction, str) or not (source and left and right):
        return None
    key = str(next((row.values[name] for name in KEYS if row.values.get(name) is not None), row.place))
    return pair_item(key, VOTES[vote], instruction, (source, left, right))

"""Reads EditScore's EditReward-Bench (arXiv 2509.23909) from the Hugging Face hub: rows are pairs, preferred first."""

from dataclasses import replace
from pathlib import Path

from editloop.evaluation.suites.hub_rows import HubRow, read_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import AxisName, Item, pair_item

GROUPS = {
    "subject": ("subject-add", "subject-remove", "subject-replace"),
    "appearance": ("color_alter", "material_alter", "style_change", "tone_transfer"),
    "scene": ("background_change", "extract"),
    "advanced": ("ps_human", "text_change", "motion_change", "compose"),
}
"""The thirteen task types in their four groups."""
TASKS = tuple(task for group in GROUPS.values() for task in group)
DIMENSIONS: tuple[AxisName, ...] = ("prompt_following", "consistency", "overall")
COLUMNS = ("key", "instruction", "task_type", "dimension")
PICTURES = ("input_image", "output_images")


def read_editscore_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items. `left` is the preferred edit; a key is the row's keys and its dimension, joined by `|`.

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
    values = row.values
    keys = values["key"] if isinstance(values["key"], list) else [values["key"]]
    sources, edits = row.pictures["input_image"], row.pictures["output_images"]
    dimension, task = values["dimension"], values["task_type"]
    wrong = [
        f"{row.name}: {fault}"
        for fault, is_faulty in (
            (f"dimension {dimension!r}; there are {', '.join(DIMENSIONS)}", dimension not in DIMENSIONS),
            (f"task_type {task!r}; there are {', '.join(TASKS)}", task not in TASKS),
            (f"{len(edits)} output_images; two are compared", len(edits) != 2),
            ("no instruction", not isinstance(values["instruction"], str)),
        )
        if is_faulty
    ]
    faults += wrong
    if wrong or not sources[0] or not all(edits):
        return None
    pictures = [sources[0], *(edit for edit in edits if edit)]
    item = pair_item("|".join([*map(str, keys), dimension]), "left", values["instruction"], pictures, task, dimension)
    return replace(item, edits_at_source_size=True)

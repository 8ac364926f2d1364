"""Checks before the processes of a training on pairs start: ordered pairs, adapter layers, sizes of the edits."""

from pathlib import Path

from editloop.datasets.preference_groups import read_groups
from editloop.datasets.splits import Split
from editloop.models.editors.opening import outline_editor
from editloop.models.editors.sources import check_references
from editloop.training.editor_dpo.pairs import check_pairs, read_ordered_pairs, working_size
from editloop.training.editor_dpo.settings import DpoSettings

PROBED_TASKS = 16
"""Tasks whose sizes and references are looked at. Those of the others are when they are encoded."""


def check_training(dataset: Path, editor: Path, settings: DpoSettings) -> dict[str, int]:
    """Check that a training can start. Takes little memory.

    Args:
        dataset: The dataset folder.
        editor: Folder of the editor to train.
        settings: The training's settings.

    Returns:
        Numbers of the train split: `pairs` to learn from, `ties` and `uncertain` pairs that are left out.

    Raises:
        EditLoopError: A split has no ordered pair, no layer has an adapter target's name, edits are much smaller than
            the editor works at, or a task has more reference images than it takes.
    """
    splits: tuple[Split, ...] = ("train", "validation")
    counts = {split: read_ordered_pairs(dataset, split, settings.least_confidence)[1] for split in splits}
    check_pairs(dataset, counts)
    outline = outline_editor(editor)
    if settings.training.adapter is not None:
        outline.adapter_layers(settings.targets or None)
    for group in read_groups(dataset, "train", targets=False)[:PROBED_TASKS]:
        check_references(outline, [(f"task {group.task_id}", len(group.references))])
        working_size(outline, group, group.edits, settings.area)
    train = counts["train"]
    return {"pairs": train.ordered, "ties": train.ties, "uncertain": train.uncertain}

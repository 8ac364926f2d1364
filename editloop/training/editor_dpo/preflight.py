"""Checks before the processes of a training on pairs start: ordered pairs, adapter layers, sizes of the edits."""

from pathlib import Path

from editloop.datasets.preference_groups import read_groups
from editloop.datasets.splits import Split
from editloop.models.editors.opening import outline_editor
from editloop.models.editors.task_check import AskedTask, check_tasks
from editloop.progress import track
from editloop.training.editor_dpo.pairs import check_pairs, read_ordered_pairs, working_size
from editloop.training.editor_dpo.settings import DpoSettings


def check_training(dataset: Path, editor: Path, settings: DpoSettings) -> dict[str, int]:
    """Check that a training can start. Takes little memory.

    Args:
        dataset: The dataset folder.
        editor: Folder of the editor to train.
        settings: The training's settings.

    Returns:
        Numbers of the train split: `pairs` to learn from, `ties` and `uncertain` pairs that are left out.

    Raises:
        EditLoopError: A split has no ordered pair, the editor cannot take a task, no layer has an adapter target's
            name, or edits are much smaller than the editor works at.
    """
    splits: tuple[Split, ...] = ("train", "validation")
    counts = {split: read_ordered_pairs(dataset, split, settings.least_confidence)[1] for split in splits}
    check_pairs(dataset, counts)
    outline = outline_editor(editor)
    if settings.training.adapter is not None:
        outline.adapter_layers(settings.targets or None)
    for split in splits:
        groups = read_groups(dataset, split, targets=False)
        asked = []
        sizes_of_groups = track(groups.picture_sizes(), f"sizes of {split}", len(groups))
        for (task, instruction), sizes in zip(groups.instructions(), sizes_of_groups, strict=True):
            asked.append(AskedTask(task, instruction, len(sizes.references)))
            working_size(outline, task, sizes.source, sizes.edits, settings.area)
        check_tasks(outline, asked)
    train = counts["train"]
    return {"pairs": train.ordered, "ties": train.ties, "uncertain": train.uncertain}

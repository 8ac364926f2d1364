"""Training task of EditScore. A unit is a row: one answer to one question about one edit."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from editloop.content import read_manifest
from editloop.datasets.preference_groups import PreferenceGroups
from editloop.errors import EditLoopError
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import pack_rows
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import EditGroup
from editloop.training.edit_score.distillation import ROWS_FILE, read_distillation_picture, read_distillation_rows
from editloop.training.edit_score.sft import answer_loss
from editloop.training.edit_score.targets import Target, rows_per_edit, targets_from_ratings, training_rows
from editloop.training.training_task import Batch, ParameterGroup, Split


class ExpertEdits:
    """Edits of a preference dataset. Targets are the experts' mean ratings."""

    def __init__(self, dataset: Path, split: Split, top: int):
        """Open a dataset.

        Args:
            dataset: Dataset folder.
            split: The split to read.
            top: Highest point of the model's scale.
        """
        self.groups, self.top = PreferenceGroups(dataset, split, targets=False), top

    def names(self) -> list[tuple[str, int]]:
        """Return for each group its name in messages and its number of edits."""
        return self.groups.sizes()

    def questions(self, group: int, edit: int) -> int:
        """Return the number of questions of an edit that are to be learnt: both.

        Args:
            group: The group, as an index of `names`.
            edit: The edit's index within the group.
        """
        return 2

    def edit(self, group: int, edit: int) -> tuple[EditGroup, Target]:
        """Return one edit, alone in its group, with its target. Its images are read only now.

        Args:
            group: The group, as an index of `names`.
            edit: The edit's index within the group.
        """
        preference_group = self.groups[group]
        edit_group = EditGroup(
            preference_group.instruction,
            preference_group.source,
            [preference_group.edits[edit]],
            preference_group.key,
            preference_group.references,
        )
        return edit_group, targets_from_ratings(preference_group.ratings[edit : edit + 1], self.top)[0]


class DistilledEdits:
    """Edits of an imported distillation folder. Targets are the teacher's."""

    def __init__(self, dataset: Path, split: Split, top: int):
        """Open an imported folder.

        Args:
            dataset: Folder that `import_distillation_rows` or `import_conversations` wrote.
            split: The split to read.
            top: Highest point of the model's scale.

        Raises:
            EditLoopError: The folder's points have another scale than the model's.
        """
        if (limit := read_manifest(dataset)["facts"]["top"]) != top:
            raise EditLoopError(
                f"{dataset}: its points go to {limit}, the model's to {top}. Set `top` in the preset's settings to it."
            )
        self.folder, self.rows = dataset, read_distillation_rows(dataset, split)

    def names(self) -> list[tuple[str, int]]:
        """Return for each group its name in messages and its number of edits."""
        return [(rows[0].key, len(rows)) for rows in self.rows]

    def questions(self, group: int, edit: int) -> int:
        """Return the number of questions of an edit that the teacher answered.

        Args:
            group: The group, as an index of `names`.
            edit: The edit's index within the group.
        """
        row = self.rows[group][edit]
        return sum(points is not None for points in (row.sc, row.pq))

    def edit(self, group: int, edit: int) -> tuple[EditGroup, Target]:
        """Return one edit, alone in its group, with its target. Its images are read only now.

        Where the source is not known, the edit stands in for it: only PQ is learnt then, which does not show it.

        Args:
            group: The group, as an index of `names`.
            edit: The edit's index within the group.
        """
        row = self.rows[group][edit]
        edited, *references = (read_distillation_picture(self.folder, sha256) for sha256 in (row.edit, *row.references))
        source = edited if row.source is None else read_distillation_picture(self.folder, row.source)
        points = (*(row.sc or (None, None)), *(row.pq or (None, None)))
        return EditGroup(row.instruction, source, [edited], row.key, references), Target(points, row.reasons)


TargetedEdits = ExpertEdits | DistilledEdits


def read_training_edits(dataset: Path, split: Split, top: int) -> TargetedEdits:
    """Open the edits of a dataset folder: `DistilledEdits` where it holds a teacher's rows, else `ExpertEdits`.

    Args:
        dataset: Folder of distilled edits or of preferences.
        split: The split to read.
        top: Highest point of the model's scale.

    Raises:
        EditLoopError: A teacher's points have another scale than the model's.
    """
    return (DistilledEdits if (dataset / ROWS_FILE.format(split=split)).is_file() else ExpertEdits)(dataset, split, top)


class RowOrigin(NamedTuple):
    """Group, edit and row that a unit stands for."""

    group: int
    edit: int
    row: int


class AnswerTrainingTask:
    """Rows for an EditScore model. Rows of a batch that are about the same edit share their common tokens."""

    def __init__(self, model: EditScoreModel, splits: dict[Split, TargetedEdits]):
        """Take the model and its data.

        Args:
            model: The model to train.
            splits: Edits with their targets, by split.
        """
        self.model, self.splits = model, splits
        self.units = {split: list(_units(edits, model.settings)) for split, edits in splits.items()}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([parameter for parameter in self.model.parameters() if parameter.requires_grad], 1.0)]

    def count(self, split: Split) -> int:
        return len(self.units[split])

    def name(self, split: Split, unit: int) -> str:
        origin = self.units[split][unit]
        return f"task {self.splits[split].names()[origin.group][0]}, edit {origin.edit}, answer {origin.row}"

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        origins = [self.units[split][unit] for unit in units]
        rows_by_edit = {}
        for key in dict.fromkeys((origin.group, origin.edit) for origin in origins):
            group, target = self.splits[split].edit(*key)
            rows_by_edit[key] = training_rows(self.model.rows, group, [target])[0]
        tensors = pack_rows(
            [rows_by_edit[origin.group, origin.edit][origin.row] for origin in origins], self.model.rows.marks
        ).tensors
        return Batch(tensors, float(len(tensors["targets"])), len(rows_by_edit))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        return answer_loss(engine(batch.tensors), batch.tensors["targets"])

    def measure(self, engine: Any, batch: Batch) -> Mapping[str, Tensor | float]:
        targets = batch.tensors["targets"]
        logits = engine(batch.tensors)
        return {
            "nats": answer_loss(logits, targets).double() * len(targets),
            "tokens": float(len(targets)),
            "right": (logits.argmax(-1) == targets).sum(),
        }

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Return mean loss per answer token (nats), and the share of tokens that the model itself ranks first.

        Args:
            sums: Sums of `measure` over the split.
        """
        return {"loss": sums["nats"] / sums["tokens"], "accuracy": sums["right"] / sums["tokens"]}


def _units(edits: TargetedEdits, settings: EditScoreSettings) -> Iterator[RowOrigin]:
    for group, (_, count) in enumerate(edits.names()):
        for edit in range(count):
            rows = rows_per_edit(settings, edits.questions(group, edit))
            yield from (RowOrigin(group, edit, row) for row in range(rows))

"""What EditScore learns from, as the training loop asks for it: a unit is a row, one answer to one question."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from components.edit_score.model import EditScoreModel
from components.edit_score.rows import packed
from components.edit_score.sft import answer_loss
from components.edit_score.targets import Target, from_ratings, rows_an_edit, taught
from components.edit_score.teacher import ROWS, picture, read_taught
from components.judges.protocol import EditGroup
from components.reward.data import PreferenceGroups
from components.training.lesson import Batch, ParameterGroup, Split
from infra.content import read_manifest
from infra.errors import EditLoopError


class Taught(Protocol):
    """Edits with their targets; pictures are read when they are asked for."""

    def names(self) -> list[tuple[str, int]]:
        """What each group is known by, and how many edits it has."""
        ...

    def edit(self, group: int, edit: int) -> tuple[EditGroup, Target]:
        """One edit, alone in its group."""
        ...


class ByExperts:
    """A dataset of preferences: targets are the experts' mean ratings."""

    def __init__(self, dataset: Path, split: Split, top: int):
        self.groups, self.top = PreferenceGroups(dataset, split), top

    def names(self) -> list[tuple[str, int]]:
        return self.groups.sizes()

    def edit(self, group: int, edit: int) -> tuple[EditGroup, Target]:
        found = self.groups[group]
        alone = EditGroup(found.instruction, found.source, [found.edits[edit]], found.key)
        return alone, from_ratings(found.ratings[edit : edit + 1], self.top)[0]


class ByTeacher:
    """A folder of taught edits."""

    def __init__(self, dataset: Path, split: Split, top: int):
        if (given := read_manifest(dataset)["facts"]["top"]) != top:
            raise EditLoopError(
                f"{dataset}: its points go to {given}, the model's to {top}. Set `top` in the preset's settings to it."
            )
        self.folder, self.rows = dataset, read_taught(dataset, split)

    def names(self) -> list[tuple[str, int]]:
        return [(rows[0].key, len(rows)) for rows in self.rows]

    def edit(self, group: int, edit: int) -> tuple[EditGroup, Target]:
        row = self.rows[group][edit]
        source, edited = (picture(self.folder, one) for one in (row.source, row.edit))
        return EditGroup(row.instruction, source, [edited], row.key), Target(row.points, row.reasons)


def read_edits(dataset: Path, split: Split, top: int) -> Taught:
    """The taught edits of a dataset folder: a teacher's, or experts' preferences."""
    return (ByTeacher if (dataset / ROWS.format(split=split)).is_file() else ByExperts)(dataset, split, top)


class Unit(NamedTuple):
    """Where a row comes from."""

    group: int
    edit: int
    row: int


class AnswerLesson:
    """Rows for an EditScore model; those of a batch that are about one edit share what they have in common."""

    def __init__(self, model: EditScoreModel, splits: dict[Split, Taught]):
        self.model, self.splits = model, splits
        self.units = {split: list(_units(edits, rows_an_edit(model.settings))) for split, edits in splits.items()}

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([one for one in self.model.parameters() if one.requires_grad], 1.0)]

    def count(self, split: Split) -> int:
        return len(self.units[split])

    def name(self, split: Split, unit: int) -> str:
        place = self.units[split][unit]
        return f"task {self.splits[split].names()[place.group][0]}, edit {place.edit}, answer {place.row}"

    def batch(self, split: Split, units: Sequence[int]) -> Batch:
        places = [self.units[split][unit] for unit in units]
        made = {}
        for key in dict.fromkeys((place.group, place.edit) for place in places):
            group, target = self.splits[split].edit(*key)
            made[key] = taught(self.model.rows, group, [target])[0]
        tensors = packed([made[place.group, place.edit][place.row] for place in places], self.model.rows.marks).tensors
        return Batch(tensors, float(len(tensors["targets"])), len(made))

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        return answer_loss(engine(batch.tensors), batch.tensors["targets"])

    def measure(self, engine: Any, batch: Batch) -> dict[str, float]:
        targets = batch.tensors["targets"]
        logits = engine(batch.tensors)
        return {
            "nats": answer_loss(logits, targets).item() * len(targets), "tokens": float(len(targets)),
            "right": float((logits.argmax(-1) == targets).sum()),
        }  # fmt: skip

    def figures(self, sums: dict[str, float]) -> dict[str, float]:
        """Mean loss an answer token (nats), and the share of tokens that the model would have written itself."""
        return {"loss": sums["nats"] / sums["tokens"], "accuracy": sums["right"] / sums["tokens"]}


def _units(edits: Taught, rows: int) -> Iterator[Unit]:
    for group, (_, count) in enumerate(edits.names()):
        for edit in range(count):
            yield from (Unit(group, edit, row) for row in range(rows))

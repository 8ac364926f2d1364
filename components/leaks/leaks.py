"""Whether training data holds what a suite asks: by a picture's bytes, by its looks, and by the instruction.

A picture of the suite that the training data has, as it is or nearly so, is a leak: the model has seen the question. An
instruction that both have is weak evidence where it stands alone ("make it brighter" is asked of every picture), and is
told apart.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["bytes", "looks", "instruction"]


class Asked(NamedTuple):
    """One picture of a suite's item, with the instruction that is asked of it."""

    key: str
    part: str
    """Which picture of the item: source, left, right, candidate 0, ..."""
    picture: bytes
    instruction: str


@dataclass(frozen=True)
class Hit:
    """A picture, or an instruction, that training data and suite share."""

    kind: Kind
    task_id: str
    """Of the training data."""
    part: str
    """Which picture of the task: source, target, or a candidate's id."""
    key: str
    """Of the suite's item."""
    suite_part: str
    distance: int
    """Bits by which the perceptual hashes differ; 0 for equal bytes."""
    same_instruction: bool


@dataclass(frozen=True)
class Leaks:
    """What was found."""

    hits: tuple[Hit, ...]
    weak: tuple[Hit, ...]
    """Equal instructions alone: listed, never a leak."""
    training_pictures: int
    suite_pictures: int
    flat: int
    """Pictures that say nothing (one colour), compared by their bytes' hash alone if at all."""

    @property
    def task_ids(self) -> frozenset[str]:
        """Tasks of the training data that leak."""
        return frozenset(one.task_id for one in self.hits)


def find_leaks(training: Path, asked: Iterable[Asked]) -> Leaks:
    """What `training`, a dataset folder (its train and validation splits), and a suite have in common."""
    raise NotImplementedError


def check_leaks(training: Path, asked: Iterable[Asked], name: str) -> Leaks:
    """The same; raises EditLoopError that lists the first hits and the way out where there are any."""
    raise NotImplementedError

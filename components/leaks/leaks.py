"""Whether training data holds what a suite asks: by a picture's bytes, by its looks, and by the instruction.

A picture of the suite that the training data has, as it is or nearly so, is a leak: the model has seen the question.
Pictures that are a little less alike are one where the same instruction is asked of them. An instruction that both have
is weak evidence where it stands alone ("make it brighter" is asked of every picture), and is told apart. Pictures that
say nothing, of one colour all over, leak nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.progress import track

from components.leaks.catalogue import Catalogue, catalogue, normalised
from components.leaks.fingerprints import alike, fingerprints
from components.suites.suite import Suite
from infra.errors import EditLoopError

PICTURES_A_TIME = 16
"""Of the suite, compared with all of the training data."""
HITS_TOLD = 20
Kind = Literal["bytes", "looks", "instruction"]
KINDS: tuple[Kind, ...] = ("bytes", "looks", "instruction")
"""The strongest first. instruction: the same one, of pictures that are less alike than `looks` asks."""


@dataclass(frozen=True)
class Hit:
    """A task of the training data and an item of the suite that share a picture: the strongest of what they share."""

    kind: Kind
    file: str
    """The shard that has the task."""
    task_id: str
    part: str
    """Which picture of the task: source, target, or a candidate's id."""
    key: str
    """Of the suite's item."""
    suite_part: str
    """Which picture of the item: source, or the candidate's name."""
    distance: int
    """Bits of 64 by which the perceptual hashes differ; 0 for equal bytes."""
    same_instruction: bool


@dataclass(frozen=True)
class Weak:
    """An instruction that both have, where no picture is shared: no leak by itself."""

    instruction: str
    tasks: int
    items: int


@dataclass(frozen=True)
class Leaks:
    """What training data and a suite have in common."""

    suite: str
    suite_sha256: str
    hits: tuple[Hit, ...]
    """By task and item, the strongest kind first."""
    weak: tuple[Weak, ...]
    training_pictures: int
    suite_pictures: int
    flat: int
    """Pictures of both that say nothing."""

    @property
    def task_ids(self) -> frozenset[str]:
        """Tasks of the training data that leak."""
        return frozenset(one.task_id for one in self.hits)

    def report(self) -> dict[str, Any]:
        """As JSON has it: the fields, and {"tasks", "by_kind"}."""
        by_kind = {kind: sum(one.kind == kind for one in self.hits) for kind in KINDS}
        return asdict(self) | {"tasks": len(self.task_ids), "by_kind": by_kind}


def find_leaks(training: Path, suite: Suite) -> Leaks:
    """What the train and validation splits of `training`, a dataset folder, have in common with a suite.

    Raises EditLoopError for a picture that cannot be read.
    """
    taught, asked = catalogue(training), list(_asked(suite))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(taught.instructions))}
    of_taught = np.array([numbers[text] for text in taught.instructions], np.int64)
    found: dict[tuple[str, str], Hit] = {}
    flat = int(taught.pictures.flat.sum())
    starts = range(0, len(asked), PICTURES_A_TIME)
    for start in track(starts, f"{suite.name}'s pictures", transient=True):
        some = asked[start : start + PICTURES_A_TIME]
        shown = fingerprints([(one.name, one.read()) for one in some])
        same = np.array([numbers.get(one.instruction, -1) for one in some])[:, None] == of_taught[None]
        flat += int(shown.flat.sum())
        for one, other, bits, strictly in alike(shown, taught.pictures, same).tolist():
            kind: Kind = "looks" if strictly else "instruction"
            if shown.sha256[one] == taught.pictures.sha256[other]:
                kind = "bytes"
            ask = some[one]
            file, task_id, part = taught.places[other]
            hit = Hit(kind, file, task_id, part, ask.key, ask.part, bits, bool(same[one, other]))
            before = found.setdefault((hit.task_id, hit.key), hit)
            if _strength(hit) < _strength(before):
                found[hit.task_id, hit.key] = hit
    hits = tuple(sorted(found.values(), key=_strength))
    return Leaks(suite.name, suite.sha256, hits, _weak(taught, suite, hits), len(taught.places), len(asked), flat)


def check_leaks(training: Path, suite: Suite) -> Leaks:
    """`find_leaks`; raises EditLoopError that lists the first hits and says what to do where there are any."""
    found = find_leaks(training, suite)
    if found.hits:
        more = [f"... and {len(found.hits) - HITS_TOLD} more"] if len(found.hits) > HITS_TOLD else []
        raise EditLoopError(
            "\n".join(
                [
                    f"{training}: {len(found.task_ids)} tasks were taught with what suite {suite.name} asks. Take them "
                    f"out by `editloop leaks --remove` and train again, or measure on another suite.",
                    *map(told, found.hits[:HITS_TOLD]),
                    *more,
                ]
            )
        )
    return found


def told(hit: Hit) -> str:
    """A hit on one line."""
    why = {
        "bytes": "the same bytes",
        "looks": f"alike, {hit.distance} bits apart",
        "instruction": f"the same instruction of pictures {hit.distance} bits apart",
    }[hit.kind]
    return f"{hit.file}: task {hit.task_id}, {hit.part} - {hit.key}, {hit.suite_part}: {why}"


class _Asked(NamedTuple):
    """One picture of a suite's item."""

    key: str
    part: str
    instruction: str
    name: str
    read: Callable[[], bytes]


def _asked(suite: Suite) -> Iterator[_Asked]:
    for item in suite.items:
        for part, picture in zip(("source", *item.candidates), item.pictures(), strict=suite.has_images):
            yield _Asked(item.key, part, normalised(item.instruction), picture.name, picture.read)


def _strength(hit: Hit) -> tuple[int, int, bool, str, str]:
    return KINDS.index(hit.kind), hit.distance, not hit.same_instruction, hit.task_id, hit.key


def _weak(taught: Catalogue, suite: Suite, hits: tuple[Hit, ...]) -> tuple[Weak, ...]:
    """Instructions that both have, but for the tasks that leak; the most frequent in the training data first."""
    leaking = {one.task_id for one in hits}
    tasks: dict[str, set[str]] = defaultdict(set)
    for place, text in zip(taught.places, taught.instructions, strict=True):
        if place.task_id not in leaking:
            tasks[text].add(place.task_id)
    items: dict[str, int] = defaultdict(int)
    for item in suite.items:
        items[normalised(item.instruction)] += 1
    both = [Weak(text, len(tasks[text]), count) for text, count in items.items() if text and text in tasks]
    return tuple(sorted(both, key=lambda one: (-one.tasks, one.instruction)))

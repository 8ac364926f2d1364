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

from editloop.data.fingerprints import compute_fingerprints, similar_pairs
from editloop.errors import EditLoopError
from editloop.evaluation.leaks.catalogue import Catalogue, normalise_instruction, read_catalogue
from editloop.evaluation.suites.suite import Suite

PICTURES_A_TIME = 16
"""Of the suite, compared with all of the training data."""
HITS_LISTED = 20
LeakKind = Literal["bytes", "looks", "instruction"]
LEAK_KINDS: tuple[LeakKind, ...] = ("bytes", "looks", "instruction")
"""The strongest first. instruction: the same one, of pictures that are less alike than `looks` asks."""


@dataclass(frozen=True)
class Hit:
    """A task of the training data and an item of the suite that share a picture: the strongest of what they share."""

    kind: LeakKind
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
class SharedInstruction:
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
    weak: tuple[SharedInstruction, ...]
    training_pictures: int
    suite_pictures: int
    flat: int
    """Pictures of both that say nothing."""

    @property
    def task_ids(self) -> frozenset[str]:
        """Tasks of the training data that leak."""
        return frozenset(hit.task_id for hit in self.hits)

    def report(self) -> dict[str, Any]:
        """As JSON has it: the fields, and {"tasks", "by_kind"}."""
        by_kind = {kind: sum(hit.kind == kind for hit in self.hits) for kind in LEAK_KINDS}
        return asdict(self) | {"tasks": len(self.task_ids), "by_kind": by_kind}


def find_leaks(training: Path, suite: Suite) -> Leaks:
    """What the train and validation splits of `training`, a dataset folder, have in common with a suite.

    Raises EditLoopError for a picture that cannot be read.
    """
    taught, suite_pictures = read_catalogue(training), list(_suite_pictures(suite))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(taught.instructions))}
    taught_numbers = np.array([numbers[text] for text in taught.instructions], np.int64)
    hits_by_pair: dict[tuple[str, str], Hit] = {}
    flat = int(taught.pictures.flat.sum())
    starts = range(0, len(suite_pictures), PICTURES_A_TIME)
    for start in track(starts, f"{suite.name}'s pictures", transient=True):
        batch = suite_pictures[start : start + PICTURES_A_TIME]
        batch_fingerprints = compute_fingerprints([(picture.name, picture.read()) for picture in batch])
        same_instruction = (
            np.array([numbers.get(picture.instruction, -1) for picture in batch])[:, None] == taught_numbers[None]
        )
        flat += int(batch_fingerprints.flat.sum())
        for batch_index, taught_index, bits, strictly in similar_pairs(
            batch_fingerprints, taught.pictures, same_instruction
        ).tolist():
            kind: LeakKind = "looks" if strictly else "instruction"
            if batch_fingerprints.sha256[batch_index] == taught.pictures.sha256[taught_index]:
                kind = "bytes"
            suite_picture = batch[batch_index]
            file, task_id, part = taught.places[taught_index]
            hit = Hit(
                kind,
                file,
                task_id,
                part,
                suite_picture.key,
                suite_picture.part,
                bits,
                bool(same_instruction[batch_index, taught_index]),
            )
            strongest = hits_by_pair.setdefault((hit.task_id, hit.key), hit)
            if _strength(hit) < _strength(strongest):
                hits_by_pair[hit.task_id, hit.key] = hit
    hits = tuple(sorted(hits_by_pair.values(), key=_strength))
    return Leaks(
        suite.name,
        suite.sha256,
        hits,
        _shared_instructions(taught, suite, hits),
        len(taught.places),
        len(suite_pictures),
        flat,
    )


def check_leaks(training: Path, suite: Suite) -> Leaks:
    """`find_leaks`; raises EditLoopError that lists the first hits and says what to do where there are any."""
    leaks = find_leaks(training, suite)
    if leaks.hits:
        omitted = [f"... and {len(leaks.hits) - HITS_LISTED} more"] if len(leaks.hits) > HITS_LISTED else []
        raise EditLoopError(
            "\n".join(
                [
                    f"{training}: {len(leaks.task_ids)} tasks were taught with what suite {suite.name} asks. Take them "
                    f"out by `editloop leaks --remove` and train again, or measure on another suite.",
                    *map(format_hit, leaks.hits[:HITS_LISTED]),
                    *omitted,
                ]
            )
        )
    return leaks


def format_hit(hit: Hit) -> str:
    """A hit on one line."""
    why = {
        "bytes": "the same bytes",
        "looks": f"alike, {hit.distance} bits apart",
        "instruction": f"the same instruction of pictures {hit.distance} bits apart",
    }[hit.kind]
    return f"{hit.file}: task {hit.task_id}, {hit.part} - {hit.key}, {hit.suite_part}: {why}"


class _SuitePicture(NamedTuple):
    """One picture of a suite's item."""

    key: str
    part: str
    instruction: str
    name: str
    read: Callable[[], bytes]


def _suite_pictures(suite: Suite) -> Iterator[_SuitePicture]:
    for item in suite.items:
        for part, picture in zip(("source", *item.candidates), item.pictures(), strict=suite.has_images):
            yield _SuitePicture(item.key, part, normalise_instruction(item.instruction), picture.name, picture.read)


def _strength(hit: Hit) -> tuple[int, int, bool, str, str]:
    return LEAK_KINDS.index(hit.kind), hit.distance, not hit.same_instruction, hit.task_id, hit.key


def _shared_instructions(taught: Catalogue, suite: Suite, hits: tuple[Hit, ...]) -> tuple[SharedInstruction, ...]:
    """Instructions that both have, but for the tasks that leak; the most frequent in the training data first."""
    leaking = {hit.task_id for hit in hits}
    tasks: dict[str, set[str]] = defaultdict(set)
    for location, text in zip(taught.places, taught.instructions, strict=True):
        if location.task_id not in leaking:
            tasks[text].add(location.task_id)
    items: dict[str, int] = defaultdict(int)
    for item in suite.items:
        items[normalise_instruction(item.instruction)] += 1
    instructions = [
        SharedInstruction(text, len(tasks[text]), count) for text, count in items.items() if text and text in tasks
    ]
    return tuple(sorted(instructions, key=lambda shared: (-shared.tasks, shared.instruction)))

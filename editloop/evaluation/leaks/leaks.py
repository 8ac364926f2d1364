"""Find what training data and a suite have in common: equal images, images that look alike, instructions.

An image of the suite that the training data holds, identical or nearly so, is a leak: the model has seen the question.
Images that are slightly less alike are a leak if their instructions are the same. A shared instruction alone is weak
evidence ("make it brighter" fits every image) and is reported separately. Images of a single colour carry no
information and never leak.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from editloop.data.fingerprints import compute_fingerprints, similar_pairs
from editloop.errors import listed_faults
from editloop.evaluation.leaks.catalogue import Catalogue, normalise_instruction, read_catalogue
from editloop.evaluation.suites.suite import PictureRef, Suite
from editloop.progress import track

PICTURES_A_TIME = 16
"""Images of the suite compared with all of the training data at once."""
HITS_LISTED = 20
"""Hits that an error message lists."""
LeakKind = Literal["pixels", "looks", "instruction"]
LEAK_KINDS: tuple[LeakKind, ...] = ("pixels", "looks", "instruction")
"""The strongest first. instruction: the instructions are equal, and the images are less alike than `looks` needs."""


@dataclass(frozen=True)
class Hit:
    """A task of the training data and an item of the suite that share an image; the strongest match of the two."""

    kind: LeakKind
    file: str
    """Name of the task's shard."""
    task_id: str
    part: str
    """Which image of the task: source, image 2 and so on for a reference, target, or a candidate's id."""
    key: str
    """Key of the suite's item."""
    suite_part: str
    """Which image of the item: source, or the candidate's name."""
    distance: int
    """Bits, of 64, by which the perceptual hashes differ; 0 for equal images."""
    same_instruction: bool


@dataclass(frozen=True)
class SharedInstruction:
    """An instruction of both, without a shared image: not a leak by itself."""

    instruction: str
    tasks: int
    """Tasks of the training data with it."""
    items: int
    """Items of the suite with it."""


@dataclass(frozen=True)
class Leaks:
    """What training data and a suite have in common."""

    suite: str
    suite_sha256: str
    hits: tuple[Hit, ...]
    """At most one per task and item, the strongest first."""
    weak: tuple[SharedInstruction, ...]
    """Shared instructions of tasks that do not leak."""
    training_pictures: int
    suite_pictures: int
    flat: int
    """Images of both that are of a single colour, or nearly so; they are not compared."""

    @property
    def task_ids(self) -> frozenset[str]:
        """Ids of the training data's tasks that leak."""
        return frozenset(hit.task_id for hit in self.hits)

    def report(self) -> dict[str, Any]:
        """Return the fields as JSON values, with the number of leaking "tasks" and the hits "by_kind"."""
        by_kind = {kind: sum(hit.kind == kind for hit in self.hits) for kind in LEAK_KINDS}
        return asdict(self) | {"tasks": len(self.task_ids), "by_kind": by_kind}


def find_leaks(training: Path, suite: Suite) -> Leaks:
    """Compare the training data of a dataset with a suite.

    Args:
        training: The dataset folder; its train and validation splits are read.
        suite: The suite.

    Returns:
        All that the two have in common.

    Raises:
        EditLoopError: A shard is missing or broken, or an image cannot be read.
    """
    taught, suite_pictures = read_catalogue(training), list(_suite_pictures(suite))
    numbers = {text: number for number, text in enumerate(dict.fromkeys(taught.instructions))}
    taught_numbers = np.array([numbers[text] for text in taught.instructions], np.int64)
    hits_by_pair: dict[tuple[str, str], Hit] = {}
    flat = int(taught.pictures.flat.sum())
    starts = range(0, len(suite_pictures), PICTURES_A_TIME)
    for start in track(starts, f"{suite.name}'s pictures"):
        batch = suite_pictures[start : start + PICTURES_A_TIME]
        batch_fingerprints = compute_fingerprints([(of_item.picture.name, of_item.picture.read()) for of_item in batch])
        same_instruction = (
            np.array([numbers.get(picture.instruction, -1) for picture in batch])[:, None] == taught_numbers[None]
        )
        flat += int(batch_fingerprints.flat.sum())
        for batch_index, taught_index, bits, strictly in similar_pairs(
            batch_fingerprints, taught.pictures, same_instruction
        ).tolist():
            kind: LeakKind = "looks" if strictly else "instruction"
            if batch_fingerprints.sha256[batch_index] == taught.pictures.sha256[taught_index]:
                kind = "pixels"
            asked, (file, task_id, part) = batch[batch_index], taught.places[taught_index]
            same = bool(same_instruction[batch_index, taught_index])
            hit = Hit(kind, file, task_id, part, asked.key, asked.part, bits, same)
            strongest = hits_by_pair.setdefault((hit.task_id, hit.key), hit)
            if _strength(hit) < _strength(strongest):
                hits_by_pair[hit.task_id, hit.key] = hit
    hits = tuple(sorted(hits_by_pair.values(), key=_strength))
    weak = _shared_instructions(taught, suite, hits)
    return Leaks(suite.name, suite.sha256, hits, weak, len(taught.places), len(suite_pictures), flat)


def check_leaks(training: Path, suite: Suite) -> Leaks:
    """Compare the training data of a dataset with a suite, and raise if there is a leak.

    Args:
        training: The dataset folder; its train and validation splits are read.
        suite: The suite.

    Returns:
        What the two have in common, without any hits.

    Raises:
        EditLoopError: There are hits: the message lists the first ones and says what to do. Or the data cannot be read.
    """
    leaks = find_leaks(training, suite)
    if leaks.hits:
        raise listed_faults(
            f"{training}: {len(leaks.task_ids)} tasks were taught with what suite {suite.name} asks. Take them out by "
            "`editloop leaks --remove` and train again, or measure on another suite.",
            [format_hit(hit) for hit in leaks.hits],
            HITS_LISTED,
        )
    return leaks


def format_hit(hit: Hit) -> str:
    """Format a hit in one line.

    Args:
        hit: The hit.
    """
    why = {
        "pixels": "the same image",
        "looks": f"alike, {hit.distance} bits apart",
        "instruction": f"the same instruction of pictures {hit.distance} bits apart",
    }[hit.kind]
    return f"{hit.file}: task {hit.task_id}, {hit.part} - {hit.key}, {hit.suite_part}: {why}"


class _SuitePicture(NamedTuple):
    """One image of a suite's item."""

    key: str
    part: str
    instruction: str
    picture: PictureRef


def _suite_pictures(suite: Suite) -> Iterator[_SuitePicture]:
    for item in suite.items:
        references = (f"image {number}" for number, _ in enumerate(item.references, start=2))
        parts = ("source", *item.candidates, *references, *("further picture" for _ in item.further))
        for part, picture in zip(parts, item.pictures(), strict=suite.has_images):
            yield _SuitePicture(item.key, part, normalise_instruction(item.instruction), picture)


def _strength(hit: Hit) -> tuple[int, int, bool, str, str]:
    return LEAK_KINDS.index(hit.kind), hit.distance, not hit.same_instruction, hit.task_id, hit.key


def _shared_instructions(taught: Catalogue, suite: Suite, hits: tuple[Hit, ...]) -> tuple[SharedInstruction, ...]:
    """Return the instructions of both, without those of tasks that leak.

    The most frequent in the training data come first.
    """
    leaking = {hit.task_id for hit in hits}
    tasks: dict[str, set[str]] = defaultdict(set)
    for location, text in zip(taught.places, taught.instructions, strict=True):
        if location.task_id not in leaking:
            tasks[text].add(location.task_id)
    items = Counter(normalise_instruction(item.instruction) for item in suite.items)
    instructions = [
        SharedInstruction(text, len(tasks[text]), count) for text, count in items.items() if text and text in tasks
    ]
    return tuple(sorted(instructions, key=lambda shared: (-shared.tasks, shared.instruction)))

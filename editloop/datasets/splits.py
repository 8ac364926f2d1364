"""Assignment of tasks to splits. Tasks that share an image get the same split, so that no image is in two."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from editloop.data.vocabulary import EditTask

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = {"train": 70, "validation": 10, "test": 20}
"""Percent of source images in each split."""


def split_of(source: str, seed: int) -> Split:
    """Return the split of a source image, by a hash of its sha256 and the seed.

    Args:
        source: sha256 of the image.
        seed: Seed of the splits.
    """
    percent = int.from_bytes(hashlib.sha256(f"{seed}:{source}".encode()).digest()[:8], "big") % 100
    return next(split for i, split in enumerate(SPLITS) if percent < sum(SHARES[before] for before in SPLITS[: i + 1]))


def splits_of(tasks: Sequence[EditTask], seed: int, is_blank: Callable[[str], bool]) -> dict[str, Split]:
    """Return the split of every task, by task id.

    Tasks that share an image (source, target or candidate) are joined, as in a chain of edits, where one task's target
    is the next one's source. Joined tasks get the split of the smallest source sha256 among them. Blank images, such as
    plain white ones, join nothing.

    Args:
        tasks: The tasks.
        seed: Seed of the splits.
        is_blank: Returns whether the image with this sha256 is blank. Called only for images that tasks of several
            sources share.
    """
    joined = DisjointSets()
    first: dict[str, str] = {}
    shared: dict[str, list[str]] = defaultdict(list)
    for task in tasks:
        for picture in picture_digests(task):
            first_source = first.setdefault(picture, task.source)
            if first_source != task.source:
                shared[picture].append(task.source)
    for picture, sources in shared.items():
        if not is_blank(picture):
            for source in sources:
                joined.join(first[picture], source)
    return {task.task_id: split_of(joined.root(task.source), seed) for task in tasks}


def picture_digests(task: EditTask) -> Iterator[str]:
    """Yield the sha256 of every image of a task: source, target, candidates.

    Args:
        task: The task.
    """
    yield task.source
    if task.target:
        yield task.target
    yield from (candidate.image for candidate in task.candidates)


class DisjointSets:
    """Union-find over names. The smallest name of a set represents it."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        """Return the smallest name of the set that a name is in. A name that was never joined is its own set.

        Args:
            name: The name.
        """
        path = []
        while (above := self._above.get(name, name)) != name:
            path.append(name)
            name = above
        self._above.update(dict.fromkeys(path, name))
        return name

    def join(self, first: str, second: str) -> None:
        """Merge the sets of two names.

        Args:
            first: A name.
            second: A name.
        """
        small, large = sorted((self.root(first), self.root(second)))
        if small != large:
            self._above[large] = small

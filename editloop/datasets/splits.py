"""Which split a task falls into: tasks that share a picture fall together, so that no picture is in two splits."""

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
    """The split of a source image that shares nothing with others: by a hash of its sha256 and the seed."""
    percent = int.from_bytes(hashlib.sha256(f"{seed}:{source}".encode()).digest()[:8], "big") % 100
    return next(split for i, split in enumerate(SPLITS) if percent < sum(SHARES[before] for before in SPLITS[: i + 1]))


def splits_of(tasks: Sequence[EditTask], seed: int, is_blank: Callable[[str], bool]) -> dict[str, Split]:
    """The split by task id: that of the smallest source sha256 among all tasks that are joined with it.

    Two tasks are joined where a picture of the one (source, target or candidate) is a picture of the other, as in a
    chain of edits, where one's target is the next one's source. Pictures that say nothing (`says_nothing` is asked
    about those of several sources only), such as a plain white one, join nobody.
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
    """The sha256 of every picture of a task: source, target, candidates."""
    yield task.source
    if task.target:
        yield task.target
    yield from (candidate.image for candidate in task.candidates)


class DisjointSets:
    """Sets of names that grow together; the smallest name of a set stands for it."""

    def __init__(self) -> None:
        self._above: dict[str, str] = {}

    def root(self, name: str) -> str:
        """The smallest name of the set that `name` is in; of one that was never joined, itself."""
        path = []
        while (above := self._above.get(name, name)) != name:
            path.append(name)
            name = above
        self._above.update(dict.fromkeys(path, name))
        return name

    def join(self, first: str, second: str) -> None:
        """Make one set of both."""
        small, large = sorted((self.root(first), self.root(second)))
        if small != large:
            self._above[large] = small

"""Assignment of tasks to splits. Tasks that share an image, or whose images look alike, get the same split."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from editloop.data.vocabulary import EditTask

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = {"train": 70, "validation": 10, "test": 20}
"""Percent of source images in each split."""


def unread_shards(*splits: Split) -> tuple[str, ...]:
    """Return shell patterns of the shards in a dataset folder that a reader of some splits does not need.

    Args:
        *splits: The splits that are read; none for a reader of the manifest.
    """
    return tuple(f"*-{split}-*.parquet" for split in SPLITS if split not in splits)


def split_of(source: str, seed: int) -> Split:
    """Return the split of a source image, by a hash of its sha256 and the seed.

    Args:
        source: sha256 of the image.
        seed: Seed of the splits.
    """
    percent = _hash_of(source, seed) % 100
    return next(split for i, split in enumerate(SPLITS) if percent < sum(SHARES[before] for before in SPLITS[: i + 1]))


def _hash_of(source: str, seed: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{source}".encode()).digest()[:8], "big")


def splits_of(
    tasks: Sequence[EditTask],
    seed: int,
    is_blank: Callable[[str], bool],
    alike: Iterable[tuple[str, str]] = (),
) -> dict[str, Split]:
    """Return the split of every task, by task id.

    Tasks that share an image (source, reference, target or candidate) are joined, as in a chain of edits, where one
    task's target is the next one's source. Joined tasks get the split of the smallest source sha256 among them. Blank
    images, such as plain white ones, join nothing. A split that the hash leaves empty, as it may in a data set of a few
    dozen images, gets one group of tasks from `train`, where there are two or more.

    Args:
        tasks: The tasks.
        seed: Seed of the splits.
        is_blank: Returns whether the image with this sha256 is blank. Called only for images that tasks of several
            sources share.
        alike: Pairs of images, by sha256, that look alike: the tasks with them are joined, too.
    """
    from scipy.cluster.hierarchy import DisjointSet

    joined = DisjointSet({task.source for task in tasks})
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
                joined.merge(first[picture], source)
    for one, other in alike:
        joined.merge(first[one], first[other])
    smallest = {source: min(sources) for sources in joined.subsets() for source in sources}
    splits = {source: split_of(source, seed) for source in smallest.values()}
    for split in SPLITS:
        trained = [source for source in splits if splits[source] == "train"]
        if split not in splits.values() and len(trained) > 1:
            splits[max(trained, key=lambda source: _hash_of(source, seed))] = split
    return {task.task_id: splits[smallest[task.source]] for task in tasks}


def picture_digests(task: EditTask) -> Iterator[str]:
    """Yield the sha256 of every image of a task: source, references, target, candidates.

    Args:
        task: The task.
    """
    yield task.source
    yield from task.references
    if task.target:
        yield task.target
    yield from (candidate.image for candidate in task.candidates)

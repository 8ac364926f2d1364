"""The pictures that a dataset teaches with, as fingerprints: read in several processes, a row group at a time."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from rich.progress import track

from components.dataset.shards import shards
from components.leaks.fingerprints import Fingerprints, fingerprints

TAUGHT = ("train", "validation")
"""Splits that training sees."""
COLUMNS = ["task_id", "instruction", "candidate_id", "source", "target", "image"]
ROWS_TOGETHER = 1000
"""Fewer rows are read here: a process costs a second."""


class Place(NamedTuple):
    """Where a picture of the training data is."""

    file: str
    task_id: str
    part: str
    """source, target, or a candidate's id."""


class Catalogue(NamedTuple):
    """Every different picture of every task."""

    places: list[Place]
    instructions: list[str]
    """Of the place's task, normalised."""
    pictures: Fingerprints


def catalogue(dataset: Path) -> Catalogue:
    """The pictures of a dataset folder's train and validation splits.

    Raises EditLoopError for shards that are missing or broken, and for a picture that cannot be read.
    """
    kept = {path: pq.read_metadata(path) for split in TAUGHT for path in shards(dataset, "candidates", split)}
    parts = [(path, group) for path, metadata in kept.items() for group in range(metadata.num_row_groups)]
    if sum(metadata.num_rows for metadata in kept.values()) <= ROWS_TOGETHER:
        return _joined([_read(one) for one in parts])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return _joined(list(track(pool.map(_read, parts), "training pictures", total=len(parts), transient=True)))


def normalised(instruction: str) -> str:
    """An instruction without what does not change what it asks: case, spaces, a full stop."""
    return " ".join(instruction.casefold().split()).strip(" .!")


def _read(part: tuple[Path, int]) -> Catalogue:
    path, group = part
    table = pq.ParquetFile(path).read_row_group(group, columns=COLUMNS)
    places, instructions, pictures, seen = (
        list[Place](),
        list[str](),
        list[tuple[str, bytes]](),
        set[tuple[str, bytes]](),
    )
    for row in table.to_pylist():
        for part_name, data in (
            ("source", row["source"]),
            ("target", row["target"]),
            (row["candidate_id"], row["image"]),
        ):
            if data is None or (row["task_id"], data) in seen:
                continue
            seen.add((row["task_id"], data))
            places.append(Place(path.name, row["task_id"], part_name))
            instructions.append(normalised(row["instruction"]))
            pictures.append((f"{path.name}, task {row['task_id']}, {part_name}", data))
    return Catalogue(places, instructions, fingerprints(pictures))


def _joined(parts: Sequence[Catalogue]) -> Catalogue:
    pictures = [part.pictures for part in parts]
    return Catalogue(
        [place for part in parts for place in part.places],
        [text for part in parts for text in part.instructions],
        Fingerprints(
            [sha256 for one in pictures for sha256 in one.sha256],
            np.concatenate([one.bits for one in pictures] or [np.zeros(0, np.uint64)]),
            np.concatenate([one.colours for one in pictures] or [np.zeros((0, 192), np.uint8)]),
            np.concatenate([one.flat for one in pictures] or [np.zeros(0, bool)]),
        ),
    )

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

from editloop.data.fingerprints import Fingerprints, compute_fingerprints
from editloop.datasets.shards import shards

TRAINING_SPLITS = ("train", "validation")
"""Splits that training sees."""
COLUMNS = ["task_id", "instruction", "candidate_id", "source", "target", "image"]
MAX_ROWS_IN_PROCESS = 1000
"""Fewer rows are read here: a process costs a second."""


class PictureLocation(NamedTuple):
    """Where a picture of the training data is."""

    file: str
    task_id: str
    part: str
    """source, target, or a candidate's id."""


class Catalogue(NamedTuple):
    """Every different picture of every task."""

    places: list[PictureLocation]
    instructions: list[str]
    """Of the place's task, normalised."""
    pictures: Fingerprints


def read_catalogue(dataset: Path) -> Catalogue:
    """The pictures of a dataset folder's train and validation splits.

    Raises EditLoopError for shards that are missing or broken, and for a picture that cannot be read.
    """
    metadata_by_path = {
        path: pq.read_metadata(path) for split in TRAINING_SPLITS for path in shards(dataset, "candidates", split)
    }
    row_groups = [
        (path, group) for path, metadata in metadata_by_path.items() for group in range(metadata.num_row_groups)
    ]
    if sum(metadata.num_rows for metadata in metadata_by_path.values()) <= MAX_ROWS_IN_PROCESS:
        return _merge_catalogues([_read_row_group(row_group) for row_group in row_groups])
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return _merge_catalogues(
            list(
                track(pool.map(_read_row_group, row_groups), "training pictures", total=len(row_groups), transient=True)
            )
        )


def normalise_instruction(instruction: str) -> str:
    """An instruction without what does not change what it asks: case, spaces, a full stop."""
    return " ".join(instruction.casefold().split()).strip(" .!")


def _read_row_group(row_group: tuple[Path, int]) -> Catalogue:
    path, group = row_group
    table = pq.ParquetFile(path).read_row_group(group, columns=COLUMNS)
    places, instructions, pictures, added = (
        list[PictureLocation](),
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
            if data is None or (row["task_id"], data) in added:
                continue
            added.add((row["task_id"], data))
            places.append(PictureLocation(path.name, row["task_id"], part_name))
            instructions.append(normalise_instruction(row["instruction"]))
            pictures.append((f"{path.name}, task {row['task_id']}, {part_name}", data))
    return Catalogue(places, instructions, compute_fingerprints(pictures))


def _merge_catalogues(parts: Sequence[Catalogue]) -> Catalogue:
    fingerprint_sets = [part.pictures for part in parts]
    return Catalogue(
        [location for part in parts for location in part.places],
        [text for part in parts for text in part.instructions],
        Fingerprints(
            [sha256 for fingerprint_set in fingerprint_sets for sha256 in fingerprint_set.sha256],
            np.concatenate([fingerprint_set.bits for fingerprint_set in fingerprint_sets] or [np.zeros(0, np.uint64)]),
            np.concatenate(
                [fingerprint_set.colours for fingerprint_set in fingerprint_sets] or [np.zeros((0, 192), np.uint8)]
            ),
            np.concatenate([fingerprint_set.flat for fingerprint_set in fingerprint_sets] or [np.zeros(0, bool)]),
        ),
    )

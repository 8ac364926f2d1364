"""The images of a dataset's training data as fingerprints, computed in several processes, one row group at a time."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import pyarrow.parquet as pq

from editloop.data.fingerprints import Fingerprints, compute_fingerprints, join_fingerprints
from editloop.datasets.shards import REFERENCES, shards
from editloop.progress import track

TRAINING_SPLITS = ("train", "validation")
"""Splits that training sees."""
COLUMNS = ["task_id", "instruction", "candidate_id", "source", "target", "image"]
"""Columns of the shards that are read, beside the reference images."""
MAX_ROWS_IN_PROCESS = 1000
"""Up to this many rows are read in this process: starting another costs a second."""


class PictureLocation(NamedTuple):
    """Location of an image in the training data."""

    file: str
    """Name of the shard."""
    task_id: str
    part: str
    """source, image 2 and so on for a reference, target, or a candidate's id."""


class Catalogue(NamedTuple):
    """The different images of each task."""

    places: list[PictureLocation]
    """Location of each image."""
    instructions: list[str]
    """Normalised instruction of each image's task."""
    pictures: Fingerprints
    """Fingerprint of each image."""


def read_catalogue(dataset: Path) -> Catalogue:
    """Read the images of a dataset's train and validation splits.

    Args:
        dataset: The dataset folder.

    Raises:
        EditLoopError: A shard is missing or broken, or an image cannot be read.
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
            list(track(pool.map(_read_row_group, row_groups), "training pictures", total=len(row_groups)))
        )


def normalise_instruction(instruction: str) -> str:
    """Return an instruction without case, extra spaces, and full stops or exclamation marks at its ends.

    Args:
        instruction: The instruction.
    """
    return " ".join(instruction.casefold().split()).strip(" .!")


def _read_row_group(row_group: tuple[Path, int]) -> Catalogue:
    path, group = row_group
    file = pq.ParquetFile(path)
    columns = [*COLUMNS, *({REFERENCES} & {*file.schema_arrow.names})]
    table = file.read_row_group(group, columns=columns)
    rows: dict[tuple[str, bytes], tuple[PictureLocation, str]] = {}
    for row in table.to_pylist():
        instruction = normalise_instruction(row["instruction"])
        references = [(f"image {number}", data) for number, data in enumerate(row.get(REFERENCES, ()), start=2)]
        parts = [("source", row["source"]), *references]
        parts += [("target", row["target"]), (row["candidate_id"], row["image"])]
        for part, data in parts:
            if data is not None:
                location = PictureLocation(path.name, row["task_id"], part)
                rows.setdefault((row["task_id"], data), (location, instruction))
    places, instructions = [location for location, _ in rows.values()], [text for _, text in rows.values()]
    pictures = [
        (f"{path.name}, task {location.task_id}, {location.part}", data)
        for (_, data), location in zip(rows, places, strict=True)
    ]
    return Catalogue(places, instructions, compute_fingerprints(pictures))


def _merge_catalogues(parts: Sequence[Catalogue]) -> Catalogue:
    prints = [compute_fingerprints([]), *(part.pictures for part in parts)]
    return Catalogue(
        [location for part in parts for location in part.places],
        [text for part in parts for text in part.instructions],
        join_fingerprints(prints),
    )

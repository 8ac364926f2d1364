"""Reads rows of a Hugging Face dataset on disk: parquet, `save_to_disk`'s arrow files, or JSON with image paths.

Rows are small: images stay in the files, and are read again by file, batch and row. One batch of a file is in memory at
a time (a row group of parquet; arrow files are memory-mapped).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from editloop.data.picture_file import first_line
from editloop.errors import EditLoopError
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import PictureRef
from editloop.text_file import file_bytes, path_kind

SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}$")
"""Stem of a shard's file name: train-00000-of-00002."""
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")


RowParts = tuple[dict[str, Any], dict[str, tuple[PictureRef | None, ...]]]
"""A row's values by column, and its images by column; None for an image with a fault."""


@dataclass(frozen=True)
class HubRow:
    """A row, with references to its images."""

    place: int
    """Index of the row, from 0, over all files."""
    name: str
    """Name in messages: file and row."""
    values: dict[str, Any]
    pictures: dict[str, tuple[PictureRef | None, ...]]
    """Images by column; None for a missing image, which is a fault of the loader."""


class _Batches:
    """The batches of one file. The one read last stays in memory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: Callable[[int], pa.Table]
        try:
            if kind := path_kind(path):
                raise EditLoopError(f"{path}: {kind}, not a file of rows.")
            if path.suffix == ".parquet":
                file = parquet.ParquetFile(path)
                self.schema, self.count = file.schema_arrow, file.num_row_groups
                self._read = lru_cache(1)(file.read_row_group)
            else:
                table = pa.ipc.open_stream(pa.memory_map(str(path))).read_all()
                self.schema, self.count, self._read = table.schema, 1, lambda _: table
        except (OSError, pa.ArrowInvalid) as error:
            raise EditLoopError(f"{path}: not a {path.suffix[1:]} file ({first_line(error)}).") from None

    def read(self, batch: int) -> pa.Table:
        try:
            return self._read(batch)
        except (OSError, pa.ArrowInvalid) as error:
            raise EditLoopError(f"{self.path}: row group {batch} cannot be read ({first_line(error)}).") from None


def data_files(data: Path) -> list[Path]:
    """Return the files of a dataset's split.

    Args:
        data: A file; or a folder with the files in it, in its `data` folder, or in one other folder below it. The path
            FOLDER/SPLIT also stands for the shards FOLDER/SPLIT-00000-of-00002.parquet and so on.

    Raises:
        EditLoopError: There are no files, or files of several splits.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        if shards := [path for path in sorted(data.parent.glob(f"{data.name}-*")) if SHARD.match(path.stem)]:
            return shards
        raise EditLoopError(f"--data {data}: no such folder; give the suite's folder or one of its files.")
    below = sorted(child for child in data.iterdir() if child.is_dir() and _row_files(child) and child.name != "data")
    for folder in (data, data / "data", *below):
        if files := _row_files(folder):
            splits = sorted({match["split"] for path in files if (match := SHARD.match(path.stem))})
            splits = [child.name for child in below] if folder in below else splits
            if len(splits) > 1:
                example = (folder.parent if folder in below else folder) / splits[0]
                raise EditLoopError(
                    f"--data {data}: several splits, {', '.join(splits)}; give one, as --data {example}."
                )
            return files
    raise EditLoopError(f"--data {data}: no .parquet, .arrow, .jsonl or .json file in it or one folder below.")


def read_rows(data: Path, columns: Sequence[str], pictures: Sequence[str], loader: PictureLoader) -> Iterator[HubRow]:
    """Yield the rows of a dataset.

    Args:
        data: The dataset, as for `data_files`.
        columns: Columns of values that must exist.
        pictures: Columns of images that must exist; a cell has one image or a list of images.
        loader: Loads the images and collects their faults.

    Raises:
        EditLoopError: There are no files or several splits, or a file cannot be read or lacks one of the columns.
    """
    index = 0
    for path in data_files(data):
        read_file = _json_rows if path.suffix.startswith(".json") else table_rows
        for number, (values, row_pictures) in enumerate(read_file(path, columns, pictures, loader)):
            yield HubRow(index, f"{path.name} row {number}", values, row_pictures)
            index += 1


def table_rows(
    path: Path, columns: Sequence[str], pictures: Sequence[str], loader: PictureLoader
) -> Iterator[RowParts]:
    """Yield the rows of a parquet or arrow file: the values that are not bytes, and the images.

    Args:
        path: The file.
        columns: Columns of values that must exist.
        pictures: Columns of images that must exist; a cell has one image or a list of images.
        loader: Loads the images and collects their faults.

    Raises:
        EditLoopError: The file cannot be read or lacks one of the columns.
    """
    batches = _Batches(path)
    lacking = [name for name in (*columns, *pictures) if name not in batches.schema.names]
    if lacking:
        present = ", ".join(batches.schema.names)
        raise EditLoopError(f"{path}: no column {', '.join(lacking)}; its columns are {present}. Another suite's file?")
    value_columns = [
        field.name for field in batches.schema if field.name not in pictures and not _holds_bytes(field.type)
    ]
    number = 0
    for batch in range(batches.count):
        table = batches.read(batch)
        for row, row_values in enumerate(table.select(value_columns).to_pylist()):
            row_pictures = {
                column: tuple(
                    _cell_picture(
                        batches, (batch, column, row, part), cell, f"{path.name} row {number} {column}", loader
                    )
                    for part, cell in enumerate(_cells(table, column, row))
                )
                for column in pictures
            }
            yield row_values, row_pictures
            number += 1


def _cells(table: pa.Table, column: str, row: int) -> list[Any]:
    cell = table[column][row].as_py()
    return cell if isinstance(cell, list) else [cell]


def _cell_picture(
    batches: _Batches, address: tuple[int, str, int, int], cell: Any, name: str, loader: PictureLoader
) -> PictureRef | None:
    """A cell's image: bytes, {"bytes", "path"} as the `datasets` library writes them, or the path of a file."""
    batch, column, row, part = address
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return loader.put(name, data, lambda: _bytes(_cells(batches.read(batch), column, row)[part]))
    path = cell.get("path") if isinstance(cell, dict) else cell
    if isinstance(path, str):
        return loader.file(path, name)
    loader.faults.append(f"{name}: no picture in it")
    return None


def _bytes(cell: Any) -> bytes:
    data = cell["bytes"] if isinstance(cell, dict) else cell
    assert isinstance(data, bytes)
    return data


def _json_rows(
    path: Path, columns: Sequence[str], pictures: Sequence[str], loader: PictureLoader
) -> Iterator[RowParts]:
    for number, record in enumerate(read_records(path)):
        if lacking := [column for column in (*columns, *pictures) if column not in record]:
            present = ", ".join(sorted(record))
            raise EditLoopError(f"{path}: row {number} has no {', '.join(lacking)}; it has {present}.")
        row_pictures = {}
        for column in pictures:
            cells = record[column] if isinstance(record[column], list) else [record[column]]
            name = f"{path.name} row {number} {column}"
            row_pictures[column] = tuple(loader.file(cell if isinstance(cell, str) else "", name) for cell in cells)
        yield {key: value for key, value in record.items() if key not in pictures}, row_pictures


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON file.

    Args:
        path: The file: a JSON list if its name ends in .json, else JSON lines.

    Raises:
        EditLoopError: There is no such file, it is not JSON, or it holds something else than objects.
    """
    if not path.is_file():
        raise EditLoopError(f"{path}: no such file.")
    try:
        if path.suffix == ".json":
            records = json.loads(file_bytes(path))
        else:
            lines = file_bytes(path).decode().split("\n")
            records = [_line_of_json(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: not JSON ({first_line(error)}).") from None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise EditLoopError(f"{path}: a list of objects is wanted, one a row.")
    return records


def _line_of_json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: line {number} is not JSON ({first_line(error)}).") from None


def _row_files(folder: Path) -> list[Path]:
    """A folder's files with rows, of the first suffix of SUFFIXES that it has. JSON files of metadata do not count."""
    about = ("dataset_info.json", "state.json", "dataset_dict.json", "manifest.json")
    for suffix in SUFFIXES:
        if files := [path for path in sorted(folder.glob(f"*{suffix}")) if path.name not in about]:
            return files
    return []


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds images or other bytes, which are not read as values."""
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_struct(inner):
        return any(_holds_bytes(inner.field(index).type) for index in range(inner.num_fields))
    is_binary: bool = pa.types.is_binary(inner) or pa.types.is_large_binary(inner)
    return is_binary

"""Rows of a data set of the Hugging Face hub on disk: parquet, `save_to_disk`'s arrow files, or JSON with paths.

Rows are light: pictures stay in the files, found again by file, batch and row. One batch of a file is in memory at a
time (a row group of parquet; arrow files are mapped).
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet

from components.suites.pictures import Shelf
from components.suites.suite import PictureAt
from infra.errors import EditLoopError

SHARD = re.compile(r"(?P<split>.+?)-\d{5}-of-\d{5}$")
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")


Parts = tuple[dict[str, Any], dict[str, tuple[PictureAt | None, ...]]]
"""A row's values, and its pictures by column."""


@dataclass(frozen=True)
class HubRow:
    """A row without its pictures."""

    place: int
    """From 0, over all files."""
    name: str
    """For messages: file and row."""
    values: dict[str, Any]
    pictures: dict[str, tuple[PictureAt | None, ...]]
    """By column; None for a picture that is missing, which the shelf tells."""


@dataclass
class _Batches:
    """The record batches of one file, the last one read kept."""

    path: Path
    held: tuple[int, pa.Table] | None = None
    _file: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            if self.path.suffix == ".parquet":
                self._file = parquet.ParquetFile(self.path)
            else:
                mapped = pa.memory_map(str(self.path))
                self._file = pa.ipc.open_stream(mapped).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise EditLoopError(f"{self.path}: not a {self.path.suffix[1:]} file ({_line(error)}).") from None

    @property
    def columns(self) -> list[str]:
        names: list[str] = self._file.schema_arrow.names if self.path.suffix == ".parquet" else self._file.column_names
        return names

    def __len__(self) -> int:
        return self._file.num_row_groups if self.path.suffix == ".parquet" else 1

    def read(self, batch: int) -> pa.Table:
        if self.path.suffix != ".parquet":
            return self._file
        if self.held is None or self.held[0] != batch:
            try:
                self.held = (batch, self._file.read_row_group(batch))
            except (OSError, pa.ArrowInvalid) as error:
                raise EditLoopError(f"{self.path}: row group {batch} cannot be read ({_line(error)}).") from None
        return self.held[1]


def data_files(data: Path) -> list[Path]:
    """The files of a data set's one split: `data` itself, those in it, in its data/ or in its one other folder.

    FOLDER/SPLIT also means the shards FOLDER/SPLIT-00000-of-00002.parquet and so on. EditLoopError where there are
    none, or several splits.
    """
    if data.is_file():
        return [data]
    if not data.is_dir():
        if shards := [one for one in sorted(data.parent.glob(f"{data.name}-*")) if SHARD.match(one.stem)]:
            return shards
        raise EditLoopError(f"--data {data}: no such folder; give the suite's folder or one of its files.")
    below = sorted(one for one in data.iterdir() if one.is_dir() and _files(one) and one.name != "data")
    for folder in (data, data / "data", *below):
        if files := _files(folder):
            splits = sorted({match["split"] for one in files if (match := SHARD.match(one.stem))})
            splits = [one.name for one in below] if folder in below else splits
            if len(splits) > 1:
                one = (folder.parent if folder in below else folder) / splits[0]
                raise EditLoopError(f"--data {data}: several splits, {', '.join(splits)}; give one, as --data {one}.")
            return files
    raise EditLoopError(f"--data {data}: no .parquet, .arrow, .jsonl or .json file in it or one folder below.")


def read_rows(data: Path, columns: Sequence[str], pictures: Sequence[str], shelf: Shelf) -> Iterator[HubRow]:
    """The rows of a data set, with `pictures` of these columns on the shelf (one or a list of them in a cell).

    EditLoopError for a file without one of the columns.
    """
    place = 0
    for path in data_files(data):
        of_file = _json_rows if path.suffix.startswith(".json") else table_rows
        for number, (values, found) in enumerate(of_file(path, columns, pictures, shelf)):
            yield HubRow(place, f"{path.name} row {number}", values, found)
            place += 1


def table_rows(path: Path, columns: Sequence[str], pictures: Sequence[str], shelf: Shelf) -> Iterator[Parts]:
    """The rows of a parquet or arrow file: the values that are no bytes, and the pictures. Errors as `read_rows`."""
    batches = _Batches(path)
    lacking = [one for one in (*columns, *pictures) if one not in batches.columns]
    if lacking:
        there = ", ".join(batches.columns)
        raise EditLoopError(f"{path}: no column {', '.join(lacking)}; its columns are {there}. Another suite's file?")
    light = [one for one in batches.columns if one not in pictures]
    number = 0
    for batch in range(len(batches)):
        table = batches.read(batch)
        values = table.select([one for one in light if not _holds_bytes(table.schema.field(one).type)]).to_pylist()
        for row, value in enumerate(values):
            found = {
                column: tuple(
                    _placed(batches, (batch, column, row, part), cell, f"{path.name} row {number} {column}", shelf)
                    for part, cell in enumerate(_cells(table, column, row))
                )
                for column in pictures
            }
            yield value, found
            number += 1


def _cells(table: pa.Table, column: str, row: int) -> list[Any]:
    cell = table[column][row].as_py()
    return cell if isinstance(cell, list) else [cell]


def _placed(batches: _Batches, at: tuple[int, str, int, int], cell: Any, name: str, shelf: Shelf) -> PictureAt | None:
    """A cell's picture: bytes, {"bytes", "path"} as the hub writes them, or the path of a file."""
    batch, column, row, part = at
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if isinstance(data, bytes):
        return shelf.put(name, data, lambda: _bytes(_cells(batches.read(batch), column, row)[part]))
    path = cell.get("path") if isinstance(cell, dict) else cell
    if isinstance(path, str):
        return shelf.file(path, name)
    shelf.faults.append(f"{name}: no picture in it")
    return None


def _bytes(cell: Any) -> bytes:
    data = cell["bytes"] if isinstance(cell, dict) else cell
    assert isinstance(data, bytes)
    return data


def _json_rows(path: Path, columns: Sequence[str], pictures: Sequence[str], shelf: Shelf) -> Iterator[Parts]:
    for number, record in enumerate(read_records(path)):
        if lacking := [one for one in (*columns, *pictures) if one not in record]:
            there = ", ".join(sorted(record))
            raise EditLoopError(f"{path}: row {number} has no {', '.join(lacking)}; it has {there}.")
        found = {}
        for column in pictures:
            cells = record[column] if isinstance(record[column], list) else [record[column]]
            name = f"{path.name} row {number} {column}"
            found[column] = tuple(shelf.file(cell if isinstance(cell, str) else "", name) for cell in cells)
        yield {key: value for key, value in record.items() if key not in pictures}, found


def read_records(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON lines. EditLoopError for anything else, naming the line."""
    if not path.is_file():
        raise EditLoopError(f"{path}: no such file.")
    try:
        if path.suffix == ".json":
            found = json.loads(path.read_text())
        else:
            lines = path.read_text().splitlines()
            found = [_line_of_json(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    except ValueError as error:
        raise EditLoopError(f"{path}: not JSON ({_line(error)}).") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise EditLoopError(f"{path}: a list of objects is wanted, one a row.")
    return found


def _line_of_json(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise EditLoopError(f"{path}: line {number} is not JSON ({_line(error)}).") from None


def _files(folder: Path) -> list[Path]:
    """A folder's files of rows, of one kind; JSON files that tell of the data set are none."""
    about = ("dataset_info.json", "state.json", "dataset_dict.json", "manifest.json")
    for suffix in SUFFIXES:
        if files := [one for one in sorted(folder.glob(f"*{suffix}")) if one.name not in about]:
            return files
    return []


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column holds pictures or other bytes, which nobody reads as values."""
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if pa.types.is_struct(inner):
        return any(_holds_bytes(inner.field(place).type) for place in range(inner.num_fields))
    return pa.types.is_binary(inner) or pa.types.is_large_binary(inner)


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]

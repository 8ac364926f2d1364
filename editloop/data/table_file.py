"""One reader for the tables that people write: CSV from any spreadsheet, tab-separated text, or Parquet.

Spreadsheets write CSV in many ways. All of these are read: UTF-8 and UTF-16 with a byte order mark (Excel's "Unicode
text"), commas, semicolons or tabs between cells, Excel's first line `sep=;`, quoted cells with line ends in them,
decimal commas, names of columns in any case and with spaces around them, and empty rows and columns at the end. What
can only be guessed is refused, with the line and the cure: other encodings, and ids that Excel has turned into numbers.

A table is read row by row, so its size does not matter.
"""

import codecs
import csv
import io
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from editloop.data.picture_file import first_line
from editloop.errors import EditLoopError
from editloop.text_file import LARGEST_TEXT, path_kind

DELIMITERS = (",", ";", "\t")
LARGEST_CELL = 4 * 2**20
"""Characters of a cell. Python's csv refuses more than 131,072 by default; Label Studio's exports have larger ones."""
BLOCK = 2**20
"""Bytes that are read at a time."""
ROWS_READ = 1024
"""Rows of a Parquet file in memory at once."""
SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
"""Excel's first line that names the delimiter."""
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
THOUSANDS = re.compile(r"[+-]?\d{1,3}([., '\u00a0\u202f]\d{3})+([.,]\d+)?")
NUMBER_OF_ID = re.compile(r"[+-]?\d+([.,]0+|([.,]\d+)?e[+-]?\d+)", re.IGNORECASE)
"""What Excel shows of an id that it took for a number: 1.0, 1E+05, 1,2E+10."""
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How .xlsx and .ods files begin, and .xls files."""
SAVE_AS = 'Save it as "CSV UTF-8" or "Unicode text"'

csv.field_size_limit(LARGEST_CELL)


class TableRow(NamedTuple):
    """One row of a table."""

    line: int
    """Number of its first line in the file; in Parquet the row number plus 1."""
    cells: dict[str, str]
    """Its cells by column, without spaces around them; "" for an empty one."""


class TableFault(NamedTuple):
    """A row that cannot be read."""

    line: int
    rule: str
    """What is wrong with it."""


class Table(NamedTuple):
    """A table that is being read; `rows` can be gone through once."""

    name: str
    """What messages call it: the path."""
    columns: tuple[str, ...]
    rows: Iterator[TableRow | TableFault]


def open_table(path: Path, known: Sequence[str] = (), first: str = "") -> Table:
    """Open a table.

    Args:
        path: A CSV or tab-separated file; or Parquet, if it ends in .parquet.
        known: Names of columns that the caller looks for. A column of the same name in other case, or with spaces
            around it or in place of underscores, gets this name; other columns keep theirs.
        first: Name of the first column where the file gives it none; "" refuses that.

    Raises:
        EditLoopError: It is no such table, its encoding is unknown, or a column has no name or that of another. Faults
            of single rows are among `rows`; damage that ends the table is raised there.
    """
    try:
        if kind := path_kind(path):
            raise EditLoopError(f"{path}: {kind}; give a CSV or Parquet table.")
        if path.suffix == ".parquet":
            return _table(str(path), _parquet_records(path), known)
        encoding = _encoding(path)
    except FileNotFoundError:
        raise EditLoopError(f"{path}: no such file; give a CSV or Parquet table.") from None
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}).") from None
    return _csv_table(str(path), lambda: path.open(encoding=encoding, newline=""), known, first)


def text_table(text: str, name: str, known: Sequence[str] = ()) -> Table:
    """Open a CSV table that is in memory.

    Args:
        text: The table.
        name: What messages call it.
        known: As in `open_table`.

    Raises:
        EditLoopError: As in `open_table`.
    """
    return _csv_table(name, lambda: io.StringIO(text, newline=""), known)


def table_text(path: Path) -> str:
    """Return a CSV table as text, from any encoding that `open_table` reads.

    Args:
        path: The file.

    Raises:
        EditLoopError: It cannot be read, is larger than LARGEST_TEXT, or its encoding is unknown.
    """
    try:
        if kind := path_kind(path):
            raise EditLoopError(f"{path}: {kind}. Give a text file.")
        if path.stat().st_size > LARGEST_TEXT:
            raise EditLoopError(f"{path}: larger than {LARGEST_TEXT >> 10} KiB, so it is another file.")
        with path.open(encoding=_encoding(path), newline="") as stream:
            return stream.read()
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}).") from None


def parse_number(cell: str) -> float:
    """Return the number in a cell, with a decimal point or a decimal comma.

    Args:
        cell: The cell.

    Raises:
        ValueError: It is no finite number, or has separators between thousands. The message is a rule for users.
    """
    text = cell.strip()
    if THOUSANDS.fullmatch(text) and not NUMBER.fullmatch(text):
        raise ValueError("write the number without separators between thousands")
    if not NUMBER.fullmatch(text) or not math.isfinite(value := float(text.replace(",", "."))):
        raise ValueError("not a number")
    return value


def number_fault(cell: str) -> str | None:
    """Return the rule that a cell breaks as a number, or None. An empty cell breaks none.

    Args:
        cell: The cell.
    """
    try:
        if cell.strip():
            parse_number(cell)
    except ValueError as rule:
        return str(rule)
    return None


def id_fault(cell: str) -> str | None:
    """Return what is wrong with an id that a spreadsheet has turned into a number, such as 1.0 or 1E+05; or None.

    Args:
        cell: The id.
    """
    if NUMBER_OF_ID.fullmatch(cell.strip()):
        return "a spreadsheet made a number of this id; format its column as text and enter the ids again"
    return None


def _csv_table(name: str, reopen: Callable[[], IO[str]], known: Sequence[str], first: str = "") -> Table:
    """Open a CSV table. The delimiter is the one by which most names are known, then the one with most columns."""
    with reopen() as stream:
        start = stream.readline(LARGEST_CELL)
    if match := SEPARATOR_LINE.fullmatch(start):
        return _table(name, _csv_records(name, reopen, match[1], skip=1), known, first)
    wanted = set(map(_normal, known))

    def fit(delimiter: str) -> tuple[int, int]:
        with reopen() as stream:
            try:
                header = next(filter(any, csv.reader(stream, delimiter=delimiter)), [])
            except csv.Error:
                header = []
        return len(wanted & set(map(_normal, header))), len(header)

    return _table(name, _csv_records(name, reopen, max(DELIMITERS, key=fit)), known, first)


def _csv_records(
    name: str, reopen: Callable[[], IO[str]], delimiter: str, skip: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Yield first line and cells of each record."""
    with reopen() as stream:
        for _ in range(skip):
            stream.readline()
        reader, line = csv.reader(stream, delimiter=delimiter, strict=True), skip + 1
        try:
            for cells in reader:
                yield line, cells
                line = skip + reader.line_num + 1
        except csv.Error as error:
            reason = "a quotation mark that is not closed" if "end of data" in str(error) else str(error)
            raise EditLoopError(f"{name}:{line}: not a row of a CSV table ({reason}). Correct it.") from None


def _parquet_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        opened = pq.ParquetFile(path)
        yield 1, list(opened.schema_arrow.names)
        number = 2
        for batch in opened.iter_batches(ROWS_READ):
            for row in batch.to_pylist():
                yield number, ["" if value is None else str(value) for value in row.values()]
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise EditLoopError(f"{path}: not a readable Parquet table ({first_line(error)}).") from None


def _table(name: str, records: Iterator[tuple[int, list[str]]], known: Sequence[str], first: str = "") -> Table:
    line, header = next((record for record in records if any(map(str.strip, record[1]))), (1, []))
    while header and not header[-1].strip():
        header = header[:-1]
    names = {_normal(column): column for column in known}
    columns = [names.get(_normal(cell), cell.strip()) for cell in header]
    if columns and not columns[0]:
        columns[0] = first
    faults = [f"column {number} has no name" for number, column in enumerate(columns, start=1) if not column]
    faults += [f"column {column!r} stands twice" for column, count in Counter(columns).items() if column and count > 1]
    if faults:
        raise EditLoopError(f"{name}:{line}: {'; '.join(faults)}. Give each column a name of its own.")
    return Table(name, tuple(columns), _rows(records, columns))


def _rows(records: Iterator[tuple[int, list[str]]], columns: Sequence[str]) -> Iterator[TableRow | TableFault]:
    for line, cells in records:
        stripped = [cell.strip() for cell in cells]
        if not any(stripped):
            continue
        if len(stripped) < len(columns) or any(stripped[len(columns) :]):
            yield TableFault(line, f"{len(cells)} cells; the header has {len(columns)} columns")
            continue
        yield TableRow(line, dict(zip(columns, stripped, strict=False)))


def _normal(column: str) -> str:
    """Return a column's name without case, and with underscores for spaces."""
    return re.sub(r"[\s_]+", "_", unicodedata.normalize("NFKC", column).strip().casefold())


def _encoding(path: Path) -> str:
    """Return the encoding of a text file, after all of it was decoded.

    Raises:
        EditLoopError: It is a workbook, or in none of the encodings.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
        if start.startswith(WORKBOOKS):
            raise EditLoopError(f"{path}: a workbook, which is not read. {SAVE_AS}.")
        no_text = f"has NUL characters, so it is no CSV table in UTF-8. {SAVE_AS}."
        encoding = next((name for mark, name in BYTE_ORDER_MARKS if start.startswith(mark)), "utf-8")
        decoder = codecs.getincrementaldecoder(encoding)()
        if encoding == "utf-8" and b"\0" in start:
            raise EditLoopError(f"{path}:1: {no_text}")
        stream.seek(0)
        line = 1
        while block := stream.read(BLOCK):
            try:
                text = decoder.decode(block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise EditLoopError(_decoding_fault(path, line, encoding, error)) from None
            if "\0" in text:
                line += text[: text.index("\0")].count("\n")
                raise EditLoopError(f"{path}:{line}: {no_text}")
            line += text.count("\n")
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise EditLoopError(_decoding_fault(path, line, encoding, error)) from None
    return encoding


def _decoding_fault(path: Path, line: int, encoding: str, error: UnicodeDecodeError) -> str:
    if encoding == "utf-16":
        return f"{path}:{line}: not UTF-16, as its first bytes say it is. {SAVE_AS}."
    wrong = error.object[error.start : error.start + 1]
    letter = wrong.decode("cp1252", errors="replace")
    return (
        f'{path}:{line}: byte 0x{wrong.hex()} is not UTF-8; in Windows-1252, Excel\'s plain "CSV", it would be '
        f"{letter!r}. Other encodings have other letters there, so none is guessed. {SAVE_AS}."
    )

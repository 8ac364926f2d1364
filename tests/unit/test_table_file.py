"""Tables as spreadsheets write them, at every door that reads one."""

import codecs
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from annotation.campaigns.campaign_settings import read_campaign_settings
from annotation.campaigns.gold import read_gold_answers
from annotation.formats.ratings_table import judgements_of_table, read_table
from editloop.data.table_file import (
    TableFault,
    TableRow,
    id_fault,
    number_fault,
    open_table,
    parse_number,
    text_table,
)
from editloop.data.vocabulary import Candidate, EditTask
from editloop.errors import EditLoopError
from editloop.evaluation.suites.imagenhub import RATINGS
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.saved_answers import read_scores
from tests.public_suites import write_imagenhub

TABLE = [
    ["item", "rater", "if", "note"],
    ["kettle", "Jürgen", "3", '"no",\nthen yes; so'],
    ["cup", "ada", "2", ""],
]


def quoted(cell: str, delimiter: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if {delimiter, '"', "\n"} & set(cell) else cell


def text(rows: list[list[str]], delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(quoted(cell, delimiter) for cell in row) + end for row in rows)


WAYS: dict[str, Callable[[list[list[str]]], bytes]] = {
    "utf-8": lambda rows: text(rows).encode(),
    "Excel's CSV UTF-8, German": lambda rows: codecs.BOM_UTF8 + text(rows, ";", "\r\n").encode(),
    "Excel's Unicode text": lambda rows: text(rows, "\t", "\r\n").encode("utf-16"),
    "UTF-16, big end first": lambda rows: codecs.BOM_UTF16_BE + text(rows, "\t").encode("utf-16-be"),
    "tabs": lambda rows: text(rows, "\t").encode(),
    "sep=": lambda rows: b"sep=;\r\n" + text(rows, ";", "\r\n").encode(),
    "sep= of no usual delimiter": lambda rows: b'"sep=|"\r\n' + text(rows, "|", "\r\n").encode(),
    "old Mac's line ends": lambda rows: text(rows, ",", "\r").encode(),
    "empty rows and columns": lambda rows: text([[], *([*row, "", " "] for row in rows), ["", ""], [" "] * 9]).encode(),
    "case and spaces": lambda rows: text([[f" {name.title()} " for name in rows[0]], *rows[1:]]).encode(),
    "spaces around cells": lambda rows: text([[f" {cell} " for cell in row] for row in rows]).encode(),
}
"""One table, as programs write it."""


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("way", WAYS)
def test_a_table_is_the_same_from_every_program(tmp_path: Path, way: str) -> None:
    opened = open_table(write(tmp_path / "t.csv", WAYS[way](TABLE)), TABLE[0])
    assert opened.columns == tuple(TABLE[0])
    assert [list(row.cells.values()) for row in opened.rows if isinstance(row, TableRow)] == TABLE[1:]


TASK = EditTask(
    task_id="t",
    name="Küche",
    instruction="Edit.",
    source="s",
    candidates=tuple(Candidate(candidate_id=name, image=f"i-{name}", editor="e") for name in ("c1", "c2")),
)


def ratings_door(file: Path, _: Path) -> object:
    return [row.cells for row in read_table(file).rows]


def judgements_door(file: Path, _: Path) -> object:
    return [(row.candidate_id, row.annotator, row.seconds) for row in judgements_of_table(file, [TASK])]


def scores_door(file: Path, folder: Path) -> object:
    if not (folder / "eval").exists():
        write_imagenhub(folder, {"r": [["[1,1]", "[0.5, 0.5]", ""]]}, ["InstructPix2Pix", "MagicBrush"])
    scores = read_scores(file, open_suite("imagenhub", folder)).scores
    assert scores is not None
    return {key: values.tolist() for key, values in scores.items()}


def imagenhub_door(file: Path, folder: Path) -> object:
    if not (folder / "eval").exists():
        write_imagenhub(folder, {"r": [["", "", ""]]}, ["InstructPix2Pix", "MagicBrush"])
    write(folder / RATINGS / "r.tsv", file.read_bytes())
    (item,) = open_suite("imagenhub", folder).items
    assert item.ratings is not None
    return np.nan_to_num(item.ratings, nan=-1).tolist()


def gold_door(file: Path, folder: Path) -> object:
    (folder / "c").mkdir(parents=True, exist_ok=True)
    (folder / "c" / "tasks.jsonl").write_text("")
    (folder / "campaign.yaml").write_text(
        f"name: kitchen\ncandidates: c\nannotators: [ada, bo]\ngold: {{answers: '{file}'}}\n", encoding="utf-8"
    )
    settings = read_campaign_settings(folder / "campaign.yaml").settings
    return read_gold_answers(settings.gold.answers, [TASK])


DOORS: dict[str, tuple[Callable[[Path, Path], object], list[list[str]]]] = {
    "ratings": (ratings_door, [["item", "rater", "if", "vq"], ["Küche", "ada", "3,5", "4"], ["b", "bo", "2", "1,25"]]),
    "judgements": (
        judgements_door,
        [["item", "rater", "if", "vq", "seconds"], ["c1", "jürgen", "3", "4,0", "12,5"], ["c2", "ada", "1", "2", ""]],
    ),
    "saved scores": (
        scores_door,
        [["key", "candidate", "score"], ["sample_0_1.jpg", "MagicBrush", "0,5"], ["sample_0_1.jpg", "0", "-1,25e-1"]],
    ),
    "ImagenHub": (imagenhub_door, [["uid", "InstructPix2Pix", "MagicBrush"], ["sample_0_1.jpg", "[1, 0.25]", ""]]),
    "gold answers": (gold_door, [["task", "candidate", "if", "vq"], ["Küche", "1", "3-4", ""], ["t", "c2", "", "2"]]),
}
"""Every reader of such tables, with a table that it reads."""


@pytest.mark.parametrize(
    ("door", "way"),
    [(door, way) for door in DOORS for way in WAYS if (door, way) != ("ImagenHub", "case and spaces")],
)
def test_every_door_reads_every_programs_tables(tmp_path: Path, door: str, way: str) -> None:
    """The columns of ImagenHub are editors' names, in the case that they have."""
    read, rows = DOORS[door]
    plain = read(write(tmp_path / "plain.csv", text(rows).encode()), tmp_path / "folder")
    assert plain
    assert read(write(tmp_path / "other.csv", WAYS[way](rows)), tmp_path / "folder") == plain


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda rows: text(rows).encode() + "Käse".encode("cp1252"), r"byte 0xe4 is not UTF-8; in Windows-1252.*'ä'"),
        (lambda rows: text(rows).encode("utf-16")[2:], "has NUL characters"),
        (lambda rows: text(rows).encode() + b"a\0b", r":\d+: has NUL characters"),
        (lambda rows: b"PK\x03\x04" + bytes(9), "a workbook, which is not read"),
        (lambda rows: codecs.BOM_UTF16_LE + text(rows).encode("utf-16-le")[:-1], "not UTF-16, as its first bytes say"),
        (lambda rows: text(rows).encode() + b'a,"b\n', r":\d+: not a row.*quotation mark that is not closed"),
        (lambda rows: text([[*rows[0], rows[0][1]], *rows[1:]]).encode(), "column '.*' stands twice"),
    ],
)
def test_every_door_refuses_what_could_only_be_guessed(
    tmp_path: Path, door: str, content: Callable[[list[list[str]]], bytes], words: str
) -> None:
    read, rows = DOORS[door]
    with pytest.raises(EditLoopError, match=words):
        read(write(tmp_path / "bad.csv", content(rows)), tmp_path / "folder")


@pytest.mark.parametrize("door", ["ratings", "judgements", "saved scores", "gold answers"])
def test_an_id_that_a_spreadsheet_made_a_number_is_named(tmp_path: Path, door: str) -> None:
    read, rows = DOORS[door]
    rows = [rows[0], ["1E+05", *rows[1][1:]], *rows[2:]]
    with pytest.raises(EditLoopError, match="spreadsheet made a number of this id; format its column as text"):
        read(write(tmp_path / "bad.csv", text(rows).encode()), tmp_path / "folder")


def test_faults_of_rows_have_the_line_where_the_row_begins(tmp_path: Path) -> None:
    content = 'a,b\n"x\ny",1\nz\n\n1,2,3\n1,2,\n'
    rows = list(open_table(write(tmp_path / "t.csv", content.encode())).rows)
    assert rows == [
        TableRow(2, {"a": "x\ny", "b": "1"}),
        TableFault(4, "1 cells; the header has 2 columns"),
        TableFault(6, "3 cells; the header has 2 columns"),
        TableRow(7, {"a": "1", "b": "2"}),
    ]
    with pytest.raises(EditLoopError, match=r"t\.csv:3: .*'ß'"):
        open_table(write(tmp_path / "t.csv", "a,b\n1,2\ngroß,1\n".encode("cp1252")))
    with pytest.raises(EditLoopError, match=r"t\.csv:1: column 2 has no name"):
        open_table(write(tmp_path / "t.csv", b"a,,b\n"))


def test_the_line_that_names_the_delimiter_is_counted(tmp_path: Path) -> None:
    rows = list(open_table(write(tmp_path / "t.csv", b'sep=|\na|b\n1|2\n"x\ny"|2\nz\n')).rows)
    assert [row.line for row in rows] == [3, 4, 6]


def test_the_delimiter_is_the_one_by_which_columns_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b"item;rater;a,b,c,d\nx;y;1,5\n")
    assert open_table(path, ("item", "rater")).columns == ("item", "rater", "a,b,c,d")
    assert len(open_table(path).columns) == 4


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    rows = [{"Item": "a", "if": 3.0, "vq": None}, {"Item": "b", "if": float("nan"), "vq": 2}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    opened = open_table(tmp_path / "t.parquet", ("item", "if", "vq"))
    assert list(opened.rows) == [
        TableRow(2, {"item": "a", "if": "3.0", "vq": ""}),
        TableRow(3, {"item": "b", "if": "nan", "vq": "2"}),
    ]
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(EditLoopError, match="not a readable Parquet table"):
        open_table(tmp_path / "t.parquet")


def test_the_first_column_may_be_one_without_a_name_where_the_caller_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", b",a\nx,1\n")
    assert open_table(path, first="file").columns == ("file", "a")
    with pytest.raises(EditLoopError, match="column 1 has no name"):
        open_table(path)


def test_a_cell_of_many_characters_is_read() -> None:
    (row,) = text_table("a\n" + "x" * 10**6 + "\n", "t").rows
    assert isinstance(row, TableRow)
    assert len(row.cells["a"]) == 10**6


@pytest.mark.parametrize(
    ("cell", "value"), [("3", 3.0), ("-3,5", -3.5), ("3.", 3.0), (",5", 0.5), ("1e-3", 1e-3), (" 2,50E+1 ", 25.0)]
)
def test_numbers_have_points_or_commas(cell: str, value: float) -> None:
    assert parse_number(cell) == value
    assert number_fault(cell) is None


@pytest.mark.parametrize("cell", ["1.234,5", "1,234,567", "1 234", "1'234.5", "12\u00a0345,6"])
def test_separated_thousands_are_refused(cell: str) -> None:
    assert number_fault(cell) == "write the number without separators between thousands"


@pytest.mark.parametrize("cell", ["nan", "inf", "1e999", "1_000", "three", "--1", "0x10", "١"])
def test_what_is_no_number_is_refused(cell: str) -> None:
    assert number_fault(cell) == "not a number"


def test_ids_that_were_numbers() -> None:
    assert all(id_fault(cell) for cell in ("1.0", "1E+05", "1,00E+05", "12.000", "-3,0"))
    assert not any(id_fault(cell) for cell in ("1", "0007", "1.5", "v1.0", "1E", "E+05", "a-1.0", "2024-01-01", ""))

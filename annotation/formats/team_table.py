"""Import of a team's own table: one row for each edit and rater, with the team's ids and paths of its pictures.

    task,candidate,source,instruction,image,annotator,if,vq
    kettle,flux-1,in/kettle.jpg,Make the kettle red.,out/kettle-flux.png,anna@team.org,4,3
    kettle,qwen-1,in/kettle.jpg,Make the kettle red.,out/kettle-qwen.png,anna@team.org,2,4

A row whose ratings are empty is an edit that nobody rated.
"""

from collections.abc import Callable, Iterator
from datetime import datetime
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from annotation.formats.import_folders import NAMES, ImportReport, names_table, write_import
from annotation.formats.judgements_folder import ImportedData
from annotation.formats.rated_edits import GivenRating, NamedEdit, RatedEdits, annotator_name, in_utc
from annotation.formats.rating_scale import OUR_SCALE, RatingScale
from editloop.data.data_origin import published_path_fault
from editloop.data.edits_file import LONGEST_INSTRUCTION, printable_json, stated_path
from editloop.data.row_import import PictureStore, RowImport
from editloop.data.table_file import Table, TableFault, TableRow, id_fault, number_fault, open_table, parse_number
from editloop.data.vocabulary import AXES, MOST_REFERENCES
from editloop.errors import EditLoopError, there_are

FORMAT = "team-table"
REQUIRED = ("task", "candidate", "source", "instruction", "image", "annotator", *AXES)
REFERENCES = tuple(f"reference_{number}" for number in range(1, MOST_REFERENCES + 1))
"""Columns of the further images that an instruction speaks of: the first is image 2."""
OPTIONAL = (*REFERENCES, "editor", "type", "position", "seconds", "created_at")
LONGEST_NAME = 200
"""Characters of a name of a task, candidate, type or editor."""
PATHS_REMEMBERED = 2**16
"""Paths of pictures whose check is not repeated: each looks at every folder on the way, and rows share pictures."""
TIME: TypeAdapter[datetime] = TypeAdapter(datetime)


class _TeamRow(NamedTuple):
    """A row whose cells are checked; its pictures have not been opened."""

    names: dict[str, str]
    """Task, type, instruction, candidate and editor."""
    pictures: dict[str, str]
    """The stated paths of source and image, and of the references in order."""
    rating: list[Any] | None
    """Annotator, ratings, position, seconds and time; None for an edit that is not rated."""


def import_team_table(
    path: Path,
    candidates: Path,
    judgements: Path,
    *,
    images: Path | None = None,
    scale: RatingScale = OUR_SCALE,
    strict: bool = False,
) -> ImportReport:
    """Import a team's own table as a candidates and a judgements folder.

    Args:
        path: The table, as `open_table` reads it, with the columns REQUIRED and perhaps some of OPTIONAL.
        candidates: Candidates folder to write.
        judgements: Judgements folder to write. Rows that were left out are listed in its `skipped.txt`; its `names.csv`
            has the team's names beside ours.
        images: Folder that the paths of pictures are relative to; None for that of the table.
        scale: The scale on which people rated.
        strict: Refuse rows with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, a column is missing, no rating is left, or `strict` and some rows have
            faults. Nothing is written.
    """
    folder = images or path.resolve().parent
    unused = [column for column in _open(path).columns if column not in REQUIRED + OPTIONAL]
    rows = RowImport(path, [path], candidates, [FORMAT, str(scale), str(folder)])
    edits, pictures, count = RatedEdits(), dict[str, str](), 0
    path_fault = lru_cache(PATHS_REMEMBERED)(partial(published_path_fault, folder))

    def read(file: Path, skip: int) -> Iterator[tuple[str, _TeamRow | str]]:
        for row in islice(_open(file).rows, skip, None):
            yield f"line {row.line}", row.rule if isinstance(row, TableFault) else _checked_row(row, scale, path_fault)

    for location, value in rows.store_rows(read, _storer(folder), "rows imported"):
        names, stored, rating = value
        try:
            _add_row(edits, location, names, stored, rating)
        except ValueError as rule:
            rows.skip(location, str(rule))
            continue
        pictures |= {name: file_sha256 for name, _, file_sha256 in stored}
        count += 1
    judged = edits.judgements()
    if count and not judged and not rows.skipped:
        rows.remove()
        raise EditLoopError(f"{path}: no row has ratings; fill in {' and '.join(AXES)}.")
    rows.check(len(judged), strict=strict)
    origin = ImportedData(path.resolve().name, f"{FORMAT}, {scale.rule}", rows.digests, pictures)
    write_import(rows, candidates, judgements, edits.tasks(), judged, origin, {NAMES: names_table(edits.names())})
    notes = (f"columns that were not read: {', '.join(unused)}",) if unused else ()
    return ImportReport(count, len(edits.tasks()), len(judged), tuple(rows.skipped), notes)


def _open(path: Path) -> Table:
    """Open the table, and refuse one that lacks a column."""
    table = open_table(path, REQUIRED + OPTIONAL)
    if lacking := [column for column in REQUIRED if column not in table.columns]:
        raise EditLoopError(
            f"{path}: no column {', '.join(lacking)}; {there_are(lacking[0], table.columns)} docs/imports.md explains "
            "the columns."
        )
    return table


def _checked_row(row: TableRow, scale: RatingScale, path_fault: Callable[[str], str | None]) -> _TeamRow | str:
    """Return a row whose cells keep the rules, or what is wrong with them."""
    cells, faults = row.cells, list[str]()

    def fault(column: str, rule: str) -> None:
        faults.append(f"{column} = {printable_json(cells[column])}: {rule}")

    for column in ("task", "candidate", "source", "instruction", "image"):
        if not cells[column]:
            faults.append(f"{column}: empty")
    for column in ("task", "candidate", "type", "editor"):
        if rule := id_fault(cells.get(column, "")):
            fault(column, rule)
        elif len(cells.get(column, "")) > LONGEST_NAME:
            fault(column, f"{len(cells[column]):,} characters; at most {LONGEST_NAME}")
    if len(cells["instruction"]) > LONGEST_INSTRUCTION:
        fault("instruction", f"{len(cells['instruction']):,} characters; at most {LONGEST_INSTRUCTION:,}")
    references = [column for column in REFERENCES if cells.get(column)]
    if skipped := [column for column in REFERENCES[: len(references)] if column not in references]:
        faults.append(f"{references[-1]}: there is no {skipped[0]}; number the references from 1")
    pictures = ("source", "image", *references)
    for column in pictures:
        if cells[column] and (rule := path_fault(cells[column])):
            fault(column, rule)
    rating = _checked_rating(cells, scale, fault) if any(cells[axis] for axis in AXES) else None
    if faults:
        return "; ".join(faults)
    names = {column: cells[column] for column in ("task", "instruction", "candidate")}
    names |= {"type": cells.get("type") or "edit", "editor": cells.get("editor") or "unknown"}
    return _TeamRow(names, {column: cells[column] for column in pictures}, rating)


def _checked_rating(cells: dict[str, str], scale: RatingScale, fault: Callable[[str, str], None]) -> list[Any]:
    """Return annotator, ratings, position, seconds and time; tell `fault` the column and the rule of each fault."""
    values: dict[str, Any] = {}

    def check(column: str, parse: Callable[[str], Any]) -> None:
        try:
            values[column] = parse(cells[column])
        except ValidationError:
            fault(column, "not a time such as 2026-03-31T14:05:00+02:00")
        except ValueError as rule:
            fault(column, str(rule))

    check("annotator", annotator_name)
    for axis in AXES:
        if cells[axis]:
            check(axis, lambda cell: scale.rating(parse_number(cell)))
        else:
            fault(axis, "empty; a rating has both axes, or none at all")
    optional = {"position": _position, "seconds": _seconds, "created_at": _time}
    for column, parse in optional.items():
        if cells.get(column):
            check(column, parse)
    return [values.get(column) for column in ("annotator", *AXES, *optional)]


def _position(cell: str) -> int:
    value = parse_number(cell)
    if value != int(value) or value < 0:
        raise ValueError("an index on the page, a whole number from 0")
    return int(value)


def _seconds(cell: str) -> float:
    if number_fault(cell) or parse_number(cell) < 0:
        raise ValueError("a number of seconds, from 0")
    return parse_number(cell)


def _time(cell: str) -> str:
    return in_utc(TIME.validate_strings(cell)).isoformat()


def _storer(folder: Path) -> Callable[[_TeamRow, PictureStore], list[Any]]:
    def store(row: _TeamRow, pictures: PictureStore) -> list[Any]:
        stored = []
        for column, name in row.pictures.items():
            picture = pictures.put(stated_path(folder, name), f"{column} = {printable_json(name)}")
            stored.append([name, picture.sha256, picture.file_sha256])
        return [row.names, stored, row.rating]

    return store


def _add_row(
    edits: RatedEdits, location: str, names: dict[str, str], stored: list[list[str]], rating: list[Any] | None
) -> None:
    source, image, *references = (identity for _, identity, _ in stored)
    edit = NamedEdit(
        task=names["task"],
        task_type=names["type"],
        instruction=names["instruction"],
        source=source,
        references=tuple(references),
        candidate=names["candidate"],
        image=image,
        editor=names["editor"],
    )
    key = edits.add_edit(location, edit)
    if rating is not None:
        annotator, following, quality, position, seconds, time = rating
        created_at = None if time is None else datetime.fromisoformat(time)
        edits.add_rating(location, key, GivenRating(annotator, (following, quality), position, seconds, created_at))

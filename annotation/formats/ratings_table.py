"""Long tables of ratings, CSV or Parquet: one row per item and rater, one column per axis.

An empty cell is a missing rating:

    item,rater,if,vq
    kitchen-1,anna,4,3
    kitchen-1,ben,3,

Columns named in `CONTEXT` describe a rating and are not axes. `write_judgements` writes all of them.
"""

import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from editloop.content import write_file
from editloop.data.table_file import TableFault, TableRow, id_fault, number_fault, open_table, parse_number
from editloop.data.vocabulary import AXES, EditTask, Judgement
from editloop.errors import EditLoopError, listed_faults
from editloop.statistics.agreement import Level, table_agreement

KEYS = ("item", "rater")
CONTEXT = ("task", "candidate", "position", "seconds", "created_at")
SHOWN_FAULTS = 100
UNKNOWN_TIME = datetime.fromtimestamp(0, UTC)
"""Time of ratings whose time is unknown. It is the same for all, so that no drift is computed from it."""


class RatingsTable(NamedTuple):
    """A table whose cells are checked; `axes` are the columns that hold ratings."""

    rows: list[TableRow]
    axes: list[str]


def read_table(path: Path, level: Level = "ordinal") -> RatingsTable:
    """Read and check a ratings table.

    Args:
        path: CSV or Parquet file.
        level: Level of measurement. At "ordinal" and "interval" every rating must be a finite number.

    Returns:
        The rows and the names of the rating columns.

    Raises:
        EditLoopError: The file is no ratings table, or cells are wrong. The message lists at most SHOWN_FAULTS faults,
            each with its line.
    """
    header, rows, faults = _read(path)
    axes = [name for name in header if name not in KEYS + CONTEXT]
    first: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row.cells["item"], row.cells["rater"])
        faults += [f"{path}:{row.line}: {name} is empty; every rating has one" for name in KEYS if not row.cells[name]]
        if all(key) and key in first:
            faults.append(
                f"{path}:{row.line}: {key[1]} rates {key[0]} a second time; the first is in line {first[key]}"
            )
        first.setdefault(key, row.line)
        if level != "nominal":
            for axis in axes:
                if rule := number_fault(row.cells[axis]):
                    faults.append(
                        f"{path}:{row.line}: {axis} = {row.cells[axis]!r}: {rule}; at level {level} ratings are "
                        "numbers, and a missing one is an empty cell"
                    )
    _raise(path, faults)
    return RatingsTable(rows, axes)


def agreement_of_table(table: RatingsTable, level: Level) -> dict[str, Any]:
    """Compute the agreement of the raters on each axis.

    The bootstrap resamples whole tasks where the table has a task column, else items.

    Args:
        table: The ratings.
        level: Level of measurement: "ordinal", "interval" or "nominal".

    Returns:
        {"axes": {name: figures of `table_agreement`}}.
    """
    by_axis = {}
    for axis in table.axes:
        rated_cells = [row.cells for row in table.rows if row.cells[axis]]
        by_axis[axis] = table_agreement(
            [cells[axis] if level == "nominal" else parse_number(cells[axis]) for cells in rated_cells],
            [cells["item"] for cells in rated_cells],
            [cells["rater"] for cells in rated_cells],
            groups=[cells.get("task") or cells["item"] for cells in rated_cells],
            level=level,
        )
    return {"axes": by_axis}


def write_judgements(judgements: Sequence[Judgement], path: Path) -> None:
    """Write judgements as a long table, with items named `task/candidate`.

    Args:
        judgements: The judgements to write.
        path: File to write: Parquet if it ends in .parquet, else CSV.
    """
    rows = [
        {
            "item": f"{judgement.task_id}/{judgement.candidate_id}",
            "rater": judgement.annotator,
            "if": judgement.instruction_following,
            "vq": judgement.visual_quality,
            "task": judgement.task_id,
            "candidate": judgement.candidate_id,
            "position": judgement.position,
            "seconds": judgement.seconds,
            "created_at": None if judgement.created_at == UNKNOWN_TIME else judgement.created_at.isoformat(),
        }
        for judgement in judgements
    ]
    if path.suffix == ".parquet":
        types = {"if": pa.int8(), "vq": pa.int8(), "position": pa.int16(), "seconds": pa.float64()}
        schema = pa.schema([(name, types.get(name, pa.string())) for name in (*KEYS, *AXES, *CONTEXT)])
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema), buffer, compression="zstd")
        write_file(path, buffer.getvalue())
        return
    table = pd.DataFrame(rows, columns=[*KEYS, *AXES, *CONTEXT])
    write_file(path, table.to_csv(index=False, lineterminator="\n"))


def judgements_of_table(path: Path, tasks: Sequence[EditTask]) -> list[Judgement]:
    """Read judgements on the candidates of `tasks` from a ratings table.

    An item is `task/candidate` or a candidate's id. Rows without any rating are skipped. Where the position is unknown,
    it is the candidate's index among its task's sorted ids; ids are digests, so this order is unrelated to quality.

    Args:
        path: CSV or Parquet file with columns item, rater, if and vq.
        tasks: The tasks that were rated.

    Returns:
        The judgements, sorted by task, candidate and rater.

    Raises:
        EditLoopError: The table has faults; the message lists at most SHOWN_FAULTS of them, each with its line.
    """
    table = read_table(path)
    locations = {
        candidate.candidate_id: (task.task_id, position)
        for task in tasks
        for position, candidate in enumerate(_by_id(task))
    }
    faults = [f"{path}: no column {axis!r}; judgements have if and vq" for axis in AXES if axis not in table.axes]
    judgements = []
    pages: dict[tuple[str, str], int] = {}
    for row in table.rows if not faults else []:
        if not any(row.cells[axis] for axis in AXES):
            continue
        candidate = row.cells["item"].rpartition("/")[2]
        task, position = locations.get(candidate, ("", 0))
        if not task or row.cells["item"] not in (candidate, f"{task}/{candidate}"):
            faults.append(f"{path}:{row.line}: item = {row.cells['item']!r}: no candidate of that id is in the folder")
            continue
        number = pages.setdefault((task, row.cells["rater"]), len(pages) + 1)
        try:
            judgements.append(_judgement(row.cells, task, candidate, position, number))
        except (ValidationError, ValueError) as error:
            faults += [f"{path}:{row.line}: {fault}" for fault in _faults(error)]
    _raise(path, faults)
    return sorted(judgements, key=lambda judgement: (judgement.task_id, judgement.candidate_id, judgement.annotator))


def _judgement(cells: dict[str, str], task: str, candidate: str, position: int, number: int) -> Judgement:
    missing = [axis for axis in AXES if not cells[axis]]
    if missing:
        raise ValueError(f"{missing[0]} is empty; a judgement has both ratings, or none at all")
    if rule := number_fault(cells.get("seconds", "")):
        raise ValueError(f"seconds = {cells['seconds']!r}: {rule}")
    levels = {axis: parse_number(cells[axis]) for axis in AXES}
    return Judgement.model_validate(
        {
            "task_id": task,
            "candidate_id": candidate,
            "annotator": cells["rater"],
            **{axis: int(level) if level == int(level) else level for axis, level in levels.items()},
            "position": cells.get("position") or position,
            "seconds": parse_number(cells["seconds"]) if cells.get("seconds") else None,
            "annotation_id": number,
            "created_at": cells.get("created_at") or UNKNOWN_TIME,
        }
    )


def _faults(error: ValueError) -> Iterator[str]:
    if not isinstance(error, ValidationError):
        yield str(error)
        return
    for details in error.errors(include_url=False):
        yield f"{details['loc'][0]} = {details['input']!r}: {str(details['msg'])[0].lower()}{str(details['msg'])[1:]}"


def _read(path: Path) -> tuple[tuple[str, ...], list[TableRow], list[str]]:
    """Return header, rows and faults of single rows.

    Raises:
        EditLoopError: The file is no ratings table at all.
    """
    table = open_table(path, KEYS + AXES + CONTEXT)
    wrong = [f"{path}: no column {name!r}" for name in KEYS if name not in table.columns]
    if not wrong and not set(table.columns) - set(KEYS + CONTEXT):
        wrong.append(f"{path}: no column of ratings beside {', '.join(table.columns)}")
    if wrong:
        columns = f"Its columns: {', '.join(table.columns) or 'none'}. Needed are item, rater and one an axis."
        raise EditLoopError("\n".join([*wrong, columns]))
    rows, faults = [], []
    for row in table.rows:
        if isinstance(row, TableFault):
            faults.append(f"{path}:{row.line}: {row.rule}")
            continue
        rows.append(row)
        if rule := id_fault(row.cells["item"]):
            faults.append(f"{path}:{row.line}: item = {row.cells['item']!r}: {rule}")
    return table.columns, rows, faults


def _by_id(task: EditTask) -> list[Any]:
    return sorted(task.candidates, key=lambda candidate: candidate.candidate_id)


def _raise(path: Path, faults: Sequence[str]) -> None:
    if faults:
        heading = f"{path}: {len(faults)} fault{'s' * (len(faults) > 1)}; nothing was done."
        raise listed_faults(heading, faults, SHOWN_FAULTS)

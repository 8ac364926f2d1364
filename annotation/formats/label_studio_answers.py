"""Reader of a Label Studio project's export: JSON, JSON_MIN or CSV, one answer at a time.

JSON has each task with its annotations, also those that were skipped. JSON_MIN and CSV have one row for each
annotation, with the task's data and the answers side by side; skipped ones and drafts are not in them.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from editloop.data.json_rows import is_unicode, read_json_rows
from editloop.data.table_file import TableFault, open_table

TABLES = (".csv", ".tsv", ".txt")
DATA_COLUMN = "_data_"
"""What an export as CSV puts before a key of the data that is also the name of a control."""


class ExportedAnswer(NamedTuple):
    """One annotation."""

    data: dict[str, Any]
    """The task's data; of JSON_MIN and CSV with everything else of the row."""
    annotator: Any
    """As exported: an id, an address, or both in a mapping; None where the account was deleted."""
    values: dict[str, list[Any]]
    """What each control says, by from_name; of JSON_MIN and CSV with everything else of the row."""
    seconds: float | None
    created_at: str | None


class LeftOut(Counter[str]):
    """Numbers of what there is in an export beside answers, by what it is."""

    def notes(self) -> list[str]:
        """Return a line for each kind."""
        return [f"{what}: {count}" for what, count in sorted(self.items()) if count]


def read_answers(file: Path, left_out: LeftOut) -> Iterator[tuple[str, ExportedAnswer | str]]:
    """Yield where each answer stands, and the answer or what is wrong with it.

    Args:
        file: The export.
        left_out: Gets the numbers of skipped annotations, drafts, predictions and tasks without an answer.

    Raises:
        EditLoopError: The file cannot be read.
    """
    if file.suffix.lower() in TABLES:
        for row in open_table(file).rows:
            place = f"line {row.line}"
            if isinstance(row, TableFault):
                yield place, row.rule
            else:
                yield from _row_answers(place, _unfolded(row.cells), left_out)
        return
    for place, value in read_json_rows(file):
        if isinstance(value, str):
            yield place, value
        elif "annotations" in value:
            yield from _task_answers(place, value, left_out)
        elif "annotation_id" in value:
            yield from _row_answers(place, value, left_out)
        else:
            yield (
                place,
                (
                    f"neither a task with annotations nor a row with annotation_id; its keys: {', '.join(value)}. "
                    "Export the project as JSON, JSON_MIN or CSV"
                ),
            )


def _task_answers(place: str, task: dict[str, Any], left_out: LeftOut) -> Iterator[tuple[str, ExportedAnswer | str]]:
    data, annotations = task.get("data"), task["annotations"]
    if not isinstance(data, dict) or not isinstance(annotations, list):
        yield place, "a task has data, a mapping, and annotations, a list"
        return
    for kind in ("drafts", "predictions"):
        left_out[kind] += len(task[kind]) if isinstance(task.get(kind), list) else 0
    left_out["tasks without an annotation"] += not annotations
    for annotation in annotations:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            yield f"task {task.get('id')}", "an annotation has a result, a list"
            continue
        if annotation.get("was_cancelled"):
            left_out["skipped annotations"] += 1
            continue
        values: dict[str, list[Any]] = {}
        for result in annotation["result"]:
            if isinstance(result, dict) and "from_name" in result:
                values.setdefault(str(result["from_name"]), []).append(result.get("value"))
        yield (
            f"task {task.get('id')}, annotation {annotation.get('id')}",
            ExportedAnswer(
                data,
                annotation.get("completed_by"),
                values,
                annotation.get("lead_time"),
                annotation.get("created_at"),
            ),
        )


def _row_answers(place: str, row: dict[str, Any], left_out: LeftOut) -> Iterator[tuple[str, ExportedAnswer | str]]:
    if row.get("annotation_id") in (None, ""):
        left_out["tasks without an annotation"] += 1
        return
    values = {key: value if isinstance(value, list) else [value] for key, value in row.items() if value is not None}
    data = row | {key.removeprefix(DATA_COLUMN): value for key, value in row.items() if key.startswith(DATA_COLUMN)}
    yield place, ExportedAnswer(data, row.get("annotator"), values, row.get("lead_time"), row.get("created_at"))


def _unfolded(cells: dict[str, str]) -> dict[str, Any]:
    """Return a row's cells with JSON lists and mappings as what they are, and without empty cells."""
    row: dict[str, Any] = {}
    for key, cell in cells.items():
        if cell[:1] in ("[", "{"):
            try:
                value = json.loads(cell)
            except (ValueError, RecursionError):
                value = cell  # a text that begins with a bracket
            row[key] = value if is_unicode(value) else cell
        elif cell:
            row[key] = cell
    return row

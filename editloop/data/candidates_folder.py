"""Readers of files of JSON lines: records one per line, and the tasks of a candidates folder."""

from pathlib import Path
from typing import TypeVar

from editloop.data.vocabulary import EditTask, Record

Line = TypeVar("Line", bound=Record)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """Return the records of a file of JSON lines, in its order.

    Args:
        path: The file.
        kind: What each line holds.
    """
    with path.open() as lines:
        return [kind.model_validate_json(line) for line in lines if line.strip()]


def read_tasks(candidates: Path) -> list[EditTask]:
    """Return the tasks in the `tasks.jsonl` of a candidates folder, in its order.

    Args:
        candidates: The candidates folder.
    """
    return read_lines(candidates / "tasks.jsonl", EditTask)

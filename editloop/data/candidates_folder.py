"""Readers of files of JSON lines: records one per line, and the tasks of a candidates folder."""

from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from editloop.content import RESTORE
from editloop.data.vocabulary import EditTask, Record
from editloop.errors import EditLoopError
from editloop.settings_file import setting_faults
from editloop.text_file import file_bytes

Line = TypeVar("Line", bound=Record)


def read_lines(path: Path, kind: type[Line]) -> list[Line]:
    """Return the records of a file of JSON lines, in its order.

    Args:
        path: The file.
        kind: What each line holds.

    Raises:
        EditLoopError: The file cannot be read, or a line is no such record.
    """
    try:
        lines = file_bytes(path).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EditLoopError(f"{path}: cannot be read ({type(error).__name__}). {RESTORE}") from error
    return [_record(path, number, line, kind) for number, line in enumerate(lines, start=1) if line.strip()]


def _record(path: Path, number: int, line: str, kind: type[Line]) -> Line:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        fault = setting_faults(error, kind)[0]
        raise EditLoopError(f"{path}: line {number} is no {kind.__name__} ({fault}). {RESTORE}") from error


def read_tasks(candidates: Path) -> list[EditTask]:
    """Return the tasks in the `tasks.jsonl` of a candidates folder, in its order.

    Args:
        candidates: The candidates folder.

    Raises:
        EditLoopError: The file cannot be read, or is damaged.
    """
    return read_lines(candidates / "tasks.jsonl", EditTask)

"""Readers of JSON files that EditLoop wrote itself, where a disk's fault or somebody's hand is told in one line."""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from editloop.errors import EditLoopError
from editloop.settings_file import setting_faults
from editloop.text_file import file_bytes

Content = TypeVar("Content", bound=BaseModel)


def read_json(path: Path, advice: str) -> Any:
    """Return the value in a JSON file.

    Args:
        path: The file.
        advice: What to do where it is damaged; a sentence.

    Raises:
        EditLoopError: The file cannot be read, or is not JSON.
    """
    try:
        return json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise EditLoopError(f"{path}: cannot be read as JSON ({reason}). {advice}") from None


def read_json_object(path: Path, advice: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    Args:
        path: The file.
        advice: What to do where it is damaged; a sentence.

    Raises:
        EditLoopError: The file cannot be read, is not JSON, or holds something else.
    """
    value = read_json(path, advice)
    if not isinstance(value, dict):
        raise EditLoopError(f"{path}: holds no JSON object. {advice}")
    return value


def read_json_record(path: Path, kind: type[Content], advice: str) -> Content:
    """Return the record in a JSON file.

    Args:
        path: The file.
        kind: What the file holds.
        advice: What to do where it is damaged; a sentence.

    Raises:
        EditLoopError: The file cannot be read, is not JSON, or holds something else.
    """
    value = read_json(path, advice)
    try:
        return kind.model_validate_json(json.dumps(value))
    except ValidationError as error:
        faults = "; ".join(setting_faults(error, kind)[:3])
        raise EditLoopError(f"{path}: no {kind.__name__} ({faults}). {advice}") from None

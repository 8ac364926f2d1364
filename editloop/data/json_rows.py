"""Streaming reader of rows in a JSON file of any length, in bounded memory: a list of objects, or an object a line."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from editloop.data.picture_file import first_line
from editloop.errors import EditLoopError
from editloop.text_file import path_kind

LONGEST_ROW = 4 * 2**20
"""Characters of a row of a list, or bytes of a line: a conversation with its whole prompt has some thousands."""
MOST_FAULTS = 10
"""Faults of a row that are named."""
CHUNK = 2**20
"""Characters of a list that are read at once."""
SPACE = " \t\n\r"
JSON_SUFFIXES = (".json", ".jsonl")

HALF_PAIR = "a text has half of a surrogate pair, which is no character"
"""What is wrong with a row that no file or database takes, although it is JSON."""

JsonRow = tuple[str, dict[str, Any] | str]
"""Where a row stands, as `line 3` or `row 3`, and the row, or what is wrong with it."""


def read_json_rows(file: Path) -> Iterator[JsonRow]:
    """Yield the rows of a file, in order.

    Args:
        file: A JSON list of objects, or JSON lines. Which of both is told by the first character.

    Raises:
        EditLoopError: The file cannot be read, or it is a list that is broken or cut off: what follows is lost then.
    """
    try:
        if kind := path_kind(file):
            raise EditLoopError(f"{file}: {kind}; give a file of JSON rows.")
        with file.open("rb") as stream:
            start = stream.read(len(codecs.BOM_UTF8)).removeprefix(codecs.BOM_UTF8).lstrip()
            while not start and (start := stream.read(1)):
                start = start.lstrip()
        yield from _list_rows(file) if start.startswith(b"[") else _line_rows(file)
    except OSError as error:
        raise EditLoopError(f"{file}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError as error:
        raise EditLoopError(f"{file}: not UTF-8 ({first_line(error)}).") from None


def is_unicode(value: Any) -> bool:
    r"""Return whether a value of JSON can be written in UTF-8: JSON may escape half of a surrogate pair, as `\ud83d`.

    Args:
        value: The value.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (UnicodeEncodeError, RecursionError):
        return False
    return True


def row_faults(error: ValidationError) -> str:
    """Return what is wrong with a row, as `key = value: rule`, separated by semicolons.

    Args:
        error: Of the row's validation.
    """
    return "; ".join(map(_rule, error.errors(include_url=False)[:MOST_FAULTS]))


def rows_file(path: Path) -> Path:
    """Return the file with the rows of a data set.

    Args:
        path: The file; or a folder, in which there is one file of JSON.

    Raises:
        EditLoopError: The folder has none, or several.
    """
    if not path.is_dir():
        return path
    files = sorted(file for file in path.iterdir() if file.suffix in JSON_SUFFIXES)
    if len(files) == 1:
        return files[0]
    names = ", ".join(file.name for file in files[:6])
    raise EditLoopError(
        f"{path}: holds {names}; give one of them." if files else f"{path}: holds no .json or .jsonl file of rows."
    )


def count_lines(file: Path) -> int | None:
    """Return the number of lines of JSON lines, which is the number of rows but for blank ones; None for a list.

    Args:
        file: The file.
    """
    if file.suffix != ".jsonl":
        return None
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(CHUNK), b""))


def _rule(details: Any) -> str:
    where = ".".join(str(part) for part in details["loc"]) or "row"
    stated = "" if details["type"] == "missing" else f" = {str(details['input'])[:60]!r}"
    return f"{where}{stated}: {details['msg'][0].lower()}{details['msg'][1:]}"


def _line_rows(file: Path) -> Iterator[JsonRow]:
    with file.open("rb") as stream:
        for number, text in enumerate(iter(lambda: stream.readline(LONGEST_ROW + 1), b""), start=1):
            if len(text) > LONGEST_ROW:
                raise EditLoopError(f"{file}:{number}: more than {LONGEST_ROW >> 20} MiB on a line, which is one row.")
            content = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
            if not content.strip():
                continue
            try:
                value: Any = json.loads(content.decode())
                row = _row(value, escaped=b"\\u" in content)
            except (ValueError, RecursionError) as error:
                row = f"not a JSON object ({first_line(error)})"
            yield f"line {number}", row


def _list_rows(file: Path) -> Iterator[JsonRow]:
    decoder, number, text, position = json.JSONDecoder(), 0, "", 0
    with file.open(encoding="utf-8-sig") as stream:
        while stream.read(1) != "[":
            pass
        while True:
            while position < len(text) and text[position] in SPACE:
                position += 1
            if position == len(text):
                text, position = stream.read(CHUNK), 0
                if not text:
                    raise EditLoopError(f"{file}: ends after row {number}, inside the list; get the file again.")
                continue
            if text[position] == "]":
                return
            if number:
                if text[position] != ",":
                    raise EditLoopError(f"{file}: after row {number}: neither a comma nor the end of the list.")
                position += 1
            number += 1
            value, text, position = _next_value(decoder, file, number, stream, text, position)
            yield f"row {number}", _row(value, escaped=True)


def _row(value: Any, *, escaped: bool) -> dict[str, Any] | str:
    """Return a row, or what is wrong with it. `escaped`: whether its text may have escapes of characters."""
    if not isinstance(value, dict):
        return "not a JSON object"
    return value if not escaped or is_unicode(value) else HALF_PAIR


def _next_value(
    decoder: json.JSONDecoder, file: Path, number: int, stream: TextIO, text: str, position: int
) -> tuple[Any, str, int]:
    """Return the value at a position of a text, the text with what was read to complete it, and the value's end."""
    while True:
        while position < len(text) and text[position] in SPACE:
            position += 1
        try:
            value, end = decoder.raw_decode(text, position)
            if end < len(text):  # a number at the end of a chunk may go on in the next
                return value, text, end
            problem = "cut off"
        except (ValueError, RecursionError) as error:
            problem = first_line(error)
        more = stream.read(CHUNK) if len(text) - position <= LONGEST_ROW else ""
        if not more:
            raise EditLoopError(
                f"{file}: row {number}: not JSON ({problem}); what follows cannot be read. Get the file again."
            )
        text, position = text[position:] + more, 0

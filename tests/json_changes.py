"""Changes of a valid JSON document that keep it JSON: what fuzzing and property tests give to readers of files."""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

Place = tuple[str | int, ...]
"""Keys and indexes that lead to a value of a document; () for the document itself."""
DEEP = 600
"""Levels of an odd value: Python's JSON reads them, and recursive code over them may fail."""
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 0.5, -0.0, 1e400, float("nan"), 10**400, 2**63, 1e-320),
    *("", " ", "\0", "\ud800", "\u202e", "é", "e\u0301", "x" * 3000, "1", "nan", "null", "-1", "1e999", "[", "{}"),
    *("..", "../x", "/etc/passwd", "/", "~", "a/../../b", "http://x/y.png", "data:image/png;base64,AAAA", "x" * 300),
    *("<img src='x'>", "<b>[/red]", "%2e%2e%2f", "2026-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "0001-01-01"),
    *([], {}, [[]], [None], [{}], {"": None}, ["x"] * 40, {"x": {"x": "x"}}, [1, "1", 1.0, True]),
    *("__class__", "http://[", "\n", "a\tb", "\x1b[31m", "\u2028"),
)
"""Values that no honest file has in most of its places, or only in few of them."""


def deep_value(levels: int = DEEP) -> Any:
    """Return a list of one list of one list and so on.

    Args:
        levels: How many.
    """
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def places_in(document: Any) -> list[Place]:
    """Return the places of all values of a document, itself included.

    Args:
        document: The document.
    """
    return list(_places(document, ()))


def _places(value: Any, place: Place) -> Iterator[Place]:
    yield place
    parts: Sequence[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, list):
        parts = list(enumerate(value))
    for key, part in parts:
        yield from _places(part, (*place, key))


def value_at(document: Any, place: Place) -> Any:
    """Return the value at a place.

    Args:
        document: The document.
        place: One of its places.
    """
    for key in place:
        document = document[key]
    return document


def with_value(document: Any, place: Place, value: Any) -> Any:
    """Return a document with another value at a place; the document stays as it is.

    Args:
        document: The document.
        place: One of its places.
        value: The value.
    """
    if not place:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[place[0]] = with_value(document[place[0]], place[1:], value)
    return copy


def change(document: Any, chance: Random) -> Any:
    """Return a document with one change: a value replaced, copied to another place, taken out, renamed or repeated.

    Args:
        document: The document.
        chance: Decides which.
    """
    place = chance.choice(places_in(document))
    value = value_at(document, place)
    match chance.randrange(8):
        case 0:  # without it
            return _without(document, place)
        case 1:  # under another name, or at another index
            return _renamed(document, place, chance)
        case 2:  # many of it
            return with_value(document, place, [value] * chance.choice((2, 3, 50)))
        case 3:  # another value of the document
            return with_value(document, place, value_at(document, chance.choice(places_in(document))))
        case 4:
            return with_value(document, place, _near(value, chance))
        case 5 if chance.randrange(20) == 0:
            return with_value(document, place, deep_value())
        case _:
            return with_value(document, place, chance.choice(ODD_VALUES))


def _without(document: Any, place: Place) -> Any:
    if not place:
        return None
    parent = value_at(document, place[:-1])
    if isinstance(parent, dict):
        return with_value(document, place[:-1], {key: part for key, part in parent.items() if key != place[-1]})
    return with_value(document, place[:-1], [part for index, part in enumerate(parent) if index != place[-1]])


def _renamed(document: Any, place: Place, chance: Random) -> Any:
    if not place:
        return {"x": document}
    parent = value_at(document, place[:-1])
    if isinstance(parent, list):
        parent = list(parent)
        chance.shuffle(parent)
        return with_value(document, place[:-1], parent)
    name = chance.choice(["", "x", "\ud800", "__class__", *parent, str(place[-1]) + " ", str(place[-1]).upper()])
    renamed = {name if key == place[-1] else key: part for key, part in parent.items()}
    return with_value(document, place[:-1], renamed)


def _near(value: Any, chance: Random) -> Any:
    """Return a value of the same kind, or of one that is taken for it."""
    if isinstance(value, bool) or value is None:
        return chance.choice((not value, str(value), [value]))
    if isinstance(value, int | float):
        return chance.choice((value + 1, -value, value * 1000, value // 3, str(value), [value], 10**30))
    if isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        letter = chance.choice(("", "\0", "/", "..", "\ud800", " ", "\n", "\u0301", "0", '"', "<", "://"))
        return chance.choice((value[:at] + letter + value[at:], value[at:], value[:at] + letter, value * 3, [value]))
    if isinstance(value, list):
        return chance.choice(({str(index): part for index, part in enumerate(value)}, value[1:], value[::-1], [*value]))
    return chance.choice((list(value), list(value.values()), {**value, "x": 1}, str(value)))


def change_text(text: str, chance: Random) -> str:
    """Return a JSON document, or JSON lines, with one to four changes; text that is neither comes back as it is.

    Args:
        text: The document or the lines.
        chance: Decides what changes.
    """
    try:
        try:
            document, is_lines = json.loads(text), False
        except ValueError:
            document, is_lines = [json.loads(line) for line in text.split("\n") if line.strip()], True
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            document = change(document, chance)
        plain = chance.random() < 0.5
        rows = document if is_lines and isinstance(document, list) else [document]
        return "\n".join(json.dumps(row, ensure_ascii=plain) for row in rows)
    except (ValueError, OverflowError, RecursionError):  # no JSON; a number or a depth that Python does not write
        return text


def change_bytes(data: bytes, chance: Random) -> bytes:
    """Return a file of JSON with one to four changes, in UTF-8; bytes that are no such text come back as they are.

    Args:
        data: The file.
        chance: Decides what changes.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data
    return change_text(text, chance).encode(errors="surrogatepass")

"""Find the wording of released weights in a user's checkout of the authors' repository.

The authors' texts are not part of EditLoop. Python files of a checkout are parsed, never run.
"""

import ast
from collections import defaultdict
from pathlib import Path

from editloop.errors import EditLoopError

MAX_SOURCE_BYTES = 1_000_000
"""Larger Python files of a checkout are not looked at."""


def find_constants(folder: Path, names: tuple[str, ...], *, beside: str | None = None) -> tuple[str, ...]:
    """Find string constants of Python files by name.

    Args:
        folder: The checkout.
        names: Names that are assigned a string at the top level of a file.
        beside: Look only at files that assign this name too, where others use the same names for other texts.

    Returns:
        The texts, in the order of the names.

    Raises:
        EditLoopError: There is no such folder, or a constant is not there, or is there with two values.
    """
    if not folder.is_dir():
        raise EditLoopError(f"--reference-repo {folder}: no such folder. Give a checkout of the authors' repository.")
    places: dict[str, dict[str, Path]] = defaultdict(dict)
    for path in sorted(folder.rglob("*.py")):
        constants = _string_constants(path)
        if beside is not None and beside not in {name for name, _ in constants}:
            continue
        for name, text in constants:
            if name in names:
                places[name].setdefault(text, path)
    for name in names:
        if len(places[name]) != 1:
            files = ", ".join(str(path) for path in places[name].values())
            fault = f"has several values ({files})" if files else "is in none of its Python files"
            raise EditLoopError(
                f"--reference-repo {folder}: string constant {name} {fault}. Give a checkout of the authors' "
                "repository, or a file of the wording (--wording)."
            )
    return tuple(next(iter(places[name])) for name in names)


def _string_constants(path: Path) -> list[tuple[str, str]]:
    """Return name and value of each string that a Python file assigns at its top level; none if it cannot be parsed."""
    try:
        if not path.is_file() or path.stat().st_size > MAX_SOURCE_BYTES:
            return []
        module = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [
        (target.id, statement.value.value)
        for statement in module.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]

"""Checks of the paths that a user gives as inputs, made before any work starts.

Each check takes the name of the option or argument (`--dataset`, `FILE`), so that the message says which path is wrong.
Every fault is one line.
"""

from pathlib import Path
from typing import NamedTuple

from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError


class FolderKind(NamedTuple):
    """A kind of complete folder: which step writes it, and what it always contains."""

    written_by: str
    """The step or command that writes such a folder, as messages name it."""
    holds: tuple[str, ...] = ()
    """Files and folders that each such folder contains, which tell it from other kinds."""


def check_complete_folder(name: str, path: Path, kind: FolderKind) -> None:
    """Check that a path is a folder of one kind with a readable manifest. The folder's other files are not read.

    Args:
        name: The option or argument that gave the path.
        path: The path to check.
        kind: The kind of folder that is expected.

    Raises:
        EditLoopError: The path is something else, or cannot be read.
    """
    try:
        read_manifest(path)
        lacking = [member for member in kind.holds if not (path / member).exists()]
    except OSError as error:
        raise _unreadable(name, path, error) from error
    except EditLoopError as error:
        raise EditLoopError(f"{name} {error} It is what {kind.written_by} writes.") from error
    if lacking:
        raise EditLoopError(
            f"{name} {path}: holds no {', '.join(lacking)}, so it is another folder. Give the one that "
            f"{kind.written_by} writes."
        )


def check_folder(name: str, path: Path) -> None:
    """Check that a path is an existing folder.

    Args:
        name: The option or argument that gave the path.
        path: The path to check.

    Raises:
        EditLoopError: It is missing, a file, or cannot be read.
    """
    _check_exists(name, path, "no such folder. Correct the path.")
    if not path.is_dir():
        raise EditLoopError(f"{name} {path}: a file. Give a folder.")


def check_file(name: str, path: Path) -> None:
    """Check that a path is an existing file.

    Args:
        name: The option or argument that gave the path.
        path: The path to check.

    Raises:
        EditLoopError: It is missing, a folder, or cannot be read.
    """
    _check_exists(name, path, "no such file. Correct the path, or run the step that writes it.")
    if not path.is_file():
        raise EditLoopError(f"{name} {path}: {'a folder' if path.is_dir() else 'no regular file'}. Give a file.")


def check_file_or_folder(name: str, path: Path) -> None:
    """Check that a path exists. Where it is a folder with a manifest, check that the manifest is readable.

    Args:
        name: The option or argument that gave the path.
        path: The path to check.

    Raises:
        EditLoopError: The path is missing or cannot be read, or the manifest is unreadable.
    """
    _check_exists(name, path, "no such file or folder. Correct the path, or run the step that writes it.")
    if (path / MANIFEST).is_file():
        try:
            read_manifest(path)
        except EditLoopError as error:
            raise EditLoopError(f"{name} {error}") from error


def _check_exists(name: str, path: Path, missing: str) -> None:
    try:
        exists = path.exists()
    except OSError as error:
        raise _unreadable(name, path, error) from error
    if not exists:
        raise EditLoopError(f"{name} {path}: {missing}")


def _unreadable(name: str, path: Path, error: OSError) -> EditLoopError:
    return EditLoopError(f"{name} {path}: cannot be read ({error.strerror}). Correct the path or its permissions.")

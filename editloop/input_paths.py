"""Paths that a user names as inputs, checked before anything is done with them: one line for each fault.

Each check takes the name by which the user gave the path (`--dataset`, `FILE`), so that the message says which of
several it is.
"""

from pathlib import Path
from typing import NamedTuple

from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError


class FolderKind(NamedTuple):
    """What a complete folder is, as the step that writes it makes it."""

    written_by: str
    """Who writes such a folder, in words."""
    holds: tuple[str, ...] = ()
    """Names of what is in every one of them, by which it is told from other folders."""


def check_complete_folder(name: str, path: Path, kind: FolderKind) -> None:
    """Check that `path` is a folder of this kind with a readable manifest; its files are not read.

    Raises:
        EditLoopError: It is not.
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
    """Check that `path` is a folder; EditLoopError where it is not."""
    if not _exists(name, path):
        raise EditLoopError(f"{name} {path}: no such folder. Correct the path.")
    if not path.is_dir():
        raise EditLoopError(f"{name} {path}: a file. Give a folder.")


def check_file(name: str, path: Path) -> None:
    """Check that `path` is a file; EditLoopError where it is not."""
    if not _exists(name, path):
        raise EditLoopError(f"{name} {path}: no such file. Correct the path, or run the step that writes it.")
    if not path.is_file():
        raise EditLoopError(f"{name} {path}: a folder. Give a file.")


def check_file_or_folder(name: str, path: Path) -> None:
    """Check that `path` is there, and that the manifest of a folder which has one is readable; else EditLoopError."""
    if not _exists(name, path):
        raise EditLoopError(f"{name} {path}: no such file or folder. Correct the path, or run the step that writes it.")
    if (path / MANIFEST).is_file():
        try:
            read_manifest(path)
        except EditLoopError as error:
            raise EditLoopError(f"{name} {error}") from error


def _exists(name: str, path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise _unreadable(name, path, error) from error


def _unreadable(name: str, path: Path, error: OSError) -> EditLoopError:
    return EditLoopError(f"{name} {path}: cannot be read ({error.strerror}). Correct the path or its permissions.")

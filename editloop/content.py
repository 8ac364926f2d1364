"""Content addresses, and result folders that appear only when they are complete.

A result folder is written under a temporary name. Its `manifest.json`, with the sha256 of every file, is written last;
then one rename moves the folder into place. A folder without a manifest counts as missing. What is renamed is on the
disk before, and the rename too when the call returns, so that a power failure leaves the old content or the new.
"""

import ctypes
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from editloop.addresses import value_without_secrets
from editloop.errors import EditLoopError
from editloop.text_file import file_bytes

MANIFEST = "manifest.json"
RESTORE = "Restore it, or run the step that writes the folder again."


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of bytes as 64 hex characters.

    Args:
        data: The bytes to hash.
    """
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the hex sha256 of a file, read in blocks.

    Args:
        path: The file to hash.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and no spaces, so that equal values give equal bytes.

    Args:
        value: Any value that `json.dumps` takes.

    Returns:
        The JSON in UTF-8.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of a value's canonical JSON.

    Args:
        value: Any value that `json.dumps` takes.
    """
    return sha256_bytes(canonical_json(value))


def write_file(path: Path, data: bytes | str) -> None:
    """Write a file completely or not at all: write a temporary file beside it, then rename it to `path`.

    Args:
        path: The file to write. An existing file is replaced; missing parent folders are created.
        data: The content. Text is written in UTF-8.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    settle(path.parent)


def settle(folder: Path) -> None:
    """Wait until the names in a folder are on the disk: a file that was renamed keeps its new name.

    Args:
        folder: The folder.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def settle_files(folder: Path) -> None:
    """Wait until all files below a folder are on the disk. On Linux that is one call for any number of files.

    Args:
        folder: The folder.
    """
    sync_file_system = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if sync_file_system is None:  # macOS
        for path in folder.rglob("*"):
            settle(path)
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if sync_file_system(handle) != 0:
            raise OSError(ctypes.get_errno(), "the disk did not take what was written", str(folder))
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, completely or not at all.

    Args:
        path: The file to write. An existing file is replaced; missing parent folders are created.
        value: Any value that `json.dumps` takes.
    """
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def is_skipped(name: str, skip: Collection[str]) -> bool:
    """Return whether a file is one that a reader of its folder does not need.

    Args:
        name: Relative path of the file.
        skip: Shell patterns of such files.
    """
    return any(fnmatchcase(name, pattern) for pattern in skip)


def folder_of_links(folder: Path) -> Path:
    """Return the folder that the files of a folder may be links into: itself, or the Hub's cache that it is part of.

    There a snapshot's files are links into the folder `blobs` two levels above.

    Args:
        folder: The folder.
    """
    resolved = folder.resolve()
    for revision in (resolved, *resolved.parents):
        if revision.parent.name == "snapshots" and (revision.parent.parent / "blobs").is_dir():
            return revision.parent.parent
    return resolved


def file_digests(folder: Path, skip: Collection[str] = ()) -> dict[str, str]:
    """Return the sha256 of every file below a folder except its top-level manifest.

    What has a digest here is also what is stored and uploaded.

    Args:
        folder: The folder to read.
        skip: Shell patterns of further files to leave out.

    Returns:
        Hex sha256 by relative POSIX path.

    Raises:
        EditLoopError: A file is a link out of the folder: another file of this machine would be taken for a part of it.
    """
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    for path in files.values():
        if path.is_symlink() and not path.resolve().is_relative_to(folder_of_links(folder)):
            raise EditLoopError(f"{path}: a link out of {folder}. Replace it by a copy of its file, or remove it.")
    return {name: sha256_file(path) for name, path in files.items() if name != MANIFEST and not is_skipped(name, skip)}


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, which becomes `target` when the block ends without error.

    An existing `target` is replaced. After an error it stays as it was.

    Args:
        target: The folder to write. Missing parent folders are created.

    Yields:
        The temporary folder, to write the files into.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    replaced = temporary.with_name(f"{temporary.name}.replaced")
    try:
        yield temporary
        settle_files(temporary)
        if target.exists():
            target.rename(replaced)
        temporary.rename(target)
        settle(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if replaced.exists() and not target.exists():
            replaced.rename(target)
        raise
    finally:
        shutil.rmtree(replaced, ignore_errors=True)


@contextmanager
def complete_folder(target: Path, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """Write a folder as `new_folder` does, with a manifest.

    Args:
        target: The folder to write.
        facts: Stored in the manifest under "facts". May be filled inside the block.

    Yields:
        The temporary folder, to write the files into.
    """
    with new_folder(target) as temporary:
        yield temporary
        write_manifest(temporary, facts or {})


def write_manifest(folder: Path, facts: dict[str, Any]) -> str:
    """Write the manifest of a folder that is complete, and return the content address in it.

    Args:
        folder: The folder. A manifest that is there is replaced.
        facts: Stored in the manifest, addresses in them without secrets.
    """
    files = file_digests(folder)
    sha256 = sha256_json(files)
    write_json(folder / MANIFEST, {"sha256": sha256, "files": files, "facts": value_without_secrets(facts)})
    return sha256


def read_manifest(folder: Path, *, check: bool = False, skip: Collection[str] = ()) -> dict[str, Any]:
    """Return the manifest of a complete folder.

    Args:
        folder: The folder to read.
        check: Also compare the bytes of every file with the manifest.
        skip: Shell patterns of files that are not compared, because the caller does not read them.

    Returns:
        {"sha256": of `files`, "files": {path: sha256}, "facts": {...}}.

    Raises:
        EditLoopError: The folder or its manifest is missing, the manifest is unreadable, or (with `check`) a file was
            changed, removed or added.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if not folder.exists():
            raise EditLoopError(f"{folder}: no such folder. Correct the path, or run the step that writes it.")
        if not folder.is_dir():
            raise EditLoopError(f"{folder}: a file. Give a folder with a {MANIFEST}.")
        raise EditLoopError(f"{folder}: no {MANIFEST}; the step that writes it has not finished. Run that step again.")
    manifest = _parse_manifest(path)
    if check:
        if manifest["sha256"] != sha256_json(manifest["files"]):
            raise EditLoopError(f"{path}: its sha256 is not that of the files that it lists. {RESTORE}")
        digests = file_digests(folder, skip)
        recorded = {name: sha256 for name, sha256 in manifest["files"].items() if not is_skipped(name, skip)}
        changed = sorted(name for name in recorded.keys() | digests.keys() if recorded.get(name) != digests.get(name))
        if changed:
            raise EditLoopError(
                f"{folder}: changed since it was written: {', '.join(changed)}. Make it again or restore it."
            )
    return manifest


def _parse_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read ({str(error).splitlines()[0]}). {RESTORE}") from error
    kinds = {"sha256": str, "files": dict, "facts": dict}
    wrong = [
        key for key, kind in kinds.items() if not isinstance(manifest, dict) or type(manifest.get(key)) is not kind
    ]
    if wrong:
        raise EditLoopError(f"{path}: lacks {', '.join(wrong)}, which every manifest of ours has. {RESTORE}")
    return dict(manifest)

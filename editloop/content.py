"""Content addresses and folders that exist only when they are complete.

A folder of results is written under a temporary name, its `manifest.json` (the sha256 of every file) last, then moved
into place in one step. A folder without a manifest is not there.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from editloop.errors import EditLoopError

MANIFEST = "manifest.json"
RESTORE = "Restore it, or run the step that writes the folder again."


def sha256_bytes(data: bytes) -> str:
    """Hex sha256 of `data`, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def sha256_json(value: Any) -> str:
    """Hex sha256 of the canonical JSON of `value`."""
    return sha256_bytes(canonical_json(value))


def write_file(path: Path, data: bytes | str) -> None:
    """Write a whole file or nothing: to a temporary name beside it, then moved over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data.encode() if isinstance(data, str) else data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all."""
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def file_digests(folder: Path) -> dict[str, str]:
    """sha256 of each file below `folder` but the manifest, keyed by relative POSIX path, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        relative: sha256_file(path) for path in files if (relative := path.relative_to(folder).as_posix()) != MANIFEST
    }


@contextmanager
def complete_folder(target: Path, facts: dict[str, Any] | None = None) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `target`, with its manifest, when the block ends without error.

    `facts` (may be filled inside the block) is kept in the manifest under "facts". An older `target` is replaced; on an
    error the older one stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield temporary
        files = file_digests(temporary)
        write_json(temporary / MANIFEST, {"sha256": sha256_json(files), "files": files, "facts": facts or {}})
        if target.exists():
            shutil.rmtree(target)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def read_manifest(folder: Path, *, check: bool = False) -> dict[str, Any]:
    """The manifest of a complete folder: {"sha256", "files": {path: sha256}, "facts"}.

    With `check`, every file's bytes are compared with it. Raises EditLoopError for a missing folder, a missing or
    unreadable manifest, or a changed, missing or surplus file, naming it.
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
        digests = file_digests(folder)
        recorded = manifest["files"]
        changed = sorted(name for name in recorded.keys() | digests.keys() if recorded.get(name) != digests.get(name))
        if changed:
            raise EditLoopError(
                f"{folder}: changed since it was written: {', '.join(changed)}. Make it again or restore it."
            )
    return manifest


def _parse_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read ({str(error).splitlines()[0]}). {RESTORE}") from error
    kinds = {"sha256": str, "files": dict, "facts": dict}
    wrong = [
        key for key, kind in kinds.items() if not isinstance(manifest, dict) or type(manifest.get(key)) is not kind
    ]
    if wrong:
        raise EditLoopError(f"{path}: lacks {', '.join(wrong)}, which every manifest of ours has. {RESTORE}")
    return dict(manifest)

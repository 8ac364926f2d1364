"""Where imported data comes from: the files as they were published, with the sha256 of each.

An imported folder has two files about it. `origin.json` is a `DataOrigin`, which the manifest's fact `origin` repeats,
so that whoever has the manifest alone can check it. `SHA256SUMS` lists every file that they came from:
`sha256sum -c SHA256SUMS` in the published folder compares them.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editloop.content import sha256_bytes, write_file
from editloop.data.edits_file import picture_path_fault
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel

ORIGIN, SUMS = "origin.json", "SHA256SUMS"
UNLISTABLE = re.compile(r"[\x00-\x1f\x7f\\]")
"""What `sha256sum` does not write as it is."""
FILES_NAMED = 4
"""Files that a text names; the others are counted."""


class DataOrigin(FrozenModel):
    """What a folder was imported from."""

    name: str
    """Name of the file or folder that was imported."""
    format: str
    """The published format."""
    files: dict[str, str]
    """sha256 of each file with rows, by its path in the published folder."""
    pictures: int
    """Picture files that were read beside them."""
    sums_sha256: str
    """sha256 of `SHA256SUMS`."""

    def text(self) -> str:
        """Return the origin in words: format, files with their sha256, and number of pictures."""
        named = [f"{name} {sha256}" for name, sha256 in list(self.files.items())[:FILES_NAMED]]
        named += [f"{len(self.files) - FILES_NAMED} more files"] if len(self.files) > FILES_NAMED else []
        named += [f"{self.pictures} pictures by {SUMS} {self.sums_sha256[:12]}"] if self.pictures else []
        return f"{self.name} ({self.format}): {', '.join(named)}"


def write_origin(
    folder: Path, name: str, form: str, files: Mapping[str, str], pictures: Mapping[str, str]
) -> dict[str, Any]:
    """Write the origin of a folder into it.

    Args:
        folder: The imported folder, before its manifest is written.
        name: Name of the file or folder that was imported.
        form: The published format.
        files: sha256 of each file with rows, by its path in the published folder.
        pictures: sha256 of each picture file that was read, likewise.

    Returns:
        {"origin": ...}, a fact for the folder's manifest.
    """
    sums = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted({**files, **pictures}.items()))
    write_file(folder / SUMS, sums)
    origin = DataOrigin(
        name=name, format=form, files=dict(files), pictures=len(pictures), sums_sha256=sha256_bytes(sums.encode())
    ).model_dump(mode="json")
    write_file(folder / ORIGIN, _file_text(origin))
    return {"origin": origin}


def origin_of(manifest: Mapping[str, Any]) -> DataOrigin | None:
    """Return the origin that a folder's manifest states; None for a folder that was not imported.

    Args:
        manifest: The manifest.

    Raises:
        EditLoopError: It states another origin than the folder's `origin.json`, or another list of files.
    """
    stated = manifest["facts"].get("origin")
    if stated is None:
        return None
    try:
        origin = DataOrigin.model_validate(stated)
    except ValidationError:
        raise EditLoopError(f"{ORIGIN}: the manifest's origin cannot be read.") from None
    if manifest["files"].get(ORIGIN) != sha256_bytes(_file_text(stated).encode()):
        raise EditLoopError(f"{ORIGIN}: the manifest states another origin than that of the folder.")
    if manifest["files"].get(SUMS) != origin.sums_sha256:
        raise EditLoopError(f"{SUMS}: not the list of files that the origin names.")
    return origin


def published_path_fault(folder: Path, name: str) -> str | None:
    """Check that a path names a file inside the published folder, and can stand on a line of `SHA256SUMS`.

    Args:
        folder: The published folder.
        name: The path as a row states it.

    Returns:
        What is wrong with the path, or None.
    """
    if fault := picture_path_fault(folder, name):
        return fault
    return "control characters or a backslash in a path; rename the file" if UNLISTABLE.search(name) else None


def _file_text(origin: Any) -> str:
    return json.dumps(origin, indent=2, ensure_ascii=False) + "\n"

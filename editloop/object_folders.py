"""Complete folders in object storage, by their content.

A folder is stored under its content address, s3://BUCKET/PREFIX/<sha256 of its manifest>. The manifest is written last,
so an address without one does not exist, and it has the sha256 of every file, so whatever arrives is checked.
"""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from pydantic import BaseModel, ValidationError

from editloop.content import (
    MANIFEST,
    canonical_json,
    file_digests,
    is_skipped,
    new_folder,
    read_manifest,
    sha256_bytes,
    sha256_file,
    sha256_json,
)
from editloop.errors import EditLoopError
from editloop.object_storage import READS, ObjectFolder, StorageError

log = logging.getLogger(__name__)

DIGEST = re.compile("[0-9a-f]{64}")
LISTING = ".listing.json"
"""Stands for the manifest in the copy of a folder that has none."""


class FolderListing(BaseModel):
    """The part of a manifest that this module reads."""

    files: dict[str, str]
    """sha256 of each file, by relative POSIX path."""


def put_folder(folder: Path, address: str) -> str:
    """Store a folder under its content address. A folder that is there already is not sent again.

    Args:
        folder: The folder. One with a manifest is named by the sha256 of that file, so by its facts too; another by
            the sha256 of a listing of its files.
        address: s3://BUCKET/PREFIX of all stored folders.

    Returns:
        The content address, s3://BUCKET/PREFIX/<sha256>.

    Raises:
        EditLoopError: A file is not what the folder's manifest says.
        StorageError: The storage cannot be written.
    """
    marker, listing = _listing_of(folder)
    remote = ObjectFolder(f"{address.rstrip('/')}/{sha256_bytes(listing)}")
    if remote.read(marker) == listing:
        return remote.address
    if marker == MANIFEST:
        read_manifest(folder, check=True)
    remote.upload({name: folder / name for name in FolderListing.model_validate_json(listing).files})
    if not remote.write(marker, listing, only_new=True) and remote.read(marker) != listing:
        raise _damaged(remote, marker)
    return remote.address


def fetch_folder(
    address: str, target: Path, names: Collection[str] | None = None, *, skip: Collection[str] = ()
) -> None:
    """Fetch a stored folder. It appears whole or not at all; every file is compared with the folder's manifest.

    Args:
        address: What `put_folder` returned.
        target: The folder to write; an existing one is replaced. It gets the manifest too, where the stored folder has
            one.
        names: Files to fetch, by relative path; None for all.
        skip: Shell patterns of files to leave out.

    Raises:
        EditLoopError: Nothing is stored there, or it has no file of such a name.
        StorageError: The storage cannot be read, or returned another content every time.
    """
    remote = ObjectFolder(address)
    marker, listing = _read_listing(remote)
    files = FolderListing.model_validate_json(listing).files
    selected = files.keys() if names is None else set(names)
    if unknown := sorted(selected - files.keys()):
        raise EditLoopError(f"{address}: has no {', '.join(unknown)}. Give names of its manifest.")
    with new_folder(target) as temporary:
        _fetch_checked(remote, {name: files[name] for name in selected if not is_skipped(name, skip)}, temporary)
        if marker == MANIFEST:
            (temporary / MANIFEST).write_bytes(listing)


def has_folder(folder: Path, address: str, *, skip: Collection[str] = ()) -> bool:
    """Return whether a folder is what `fetch_folder` wrote. Every file is read.

    Args:
        folder: The folder, which may be missing.
        address: Its content address.
        skip: Shell patterns of the files that were left out.
    """
    if not folder.is_dir():
        return False
    _, listing = _listing_of(folder)
    if sha256_bytes(listing) != content_digest(address):
        return False
    files = FolderListing.model_validate_json(listing).files
    return file_digests(folder) == {name: digest for name, digest in files.items() if not is_skipped(name, skip)}


def fetch_named_folder(address: str, target: Path) -> None:
    """Fetch a folder that somebody put under an address of their own. With a manifest, every file is compared with it.

    Args:
        address: s3://BUCKET/PREFIX of the folder.
        target: The folder to write; an existing one is replaced.

    Raises:
        EditLoopError: Nothing is there, or it is not what its manifest says.
        StorageError: The storage cannot be read.
    """
    remote = ObjectFolder(address)
    names = remote.names()
    if not names:
        raise EditLoopError(f"{address}: nothing is there. Correct the address.")
    with new_folder(target) as temporary:
        remote.download(names, temporary)
        if MANIFEST in names:
            read_manifest(temporary, check=True)


def content_digest(address: str) -> str:
    """Return the sha256 that ends a content address.

    Args:
        address: What `put_folder` returned.

    Raises:
        EditLoopError: It is no content address.
    """
    digest = address.rsplit("/", 1)[-1]
    if not DIGEST.fullmatch(digest):
        raise EditLoopError(f"{address}: no content address. Give one that ends in a sha256, as a step wrote it.")
    return digest


def folder_digest(address: str) -> str | None:
    """Return the sha256 of a folder's content, from its manifest in object storage; None where it has none.

    Args:
        address: s3://BUCKET/PREFIX of the folder, which need not be a content address.

    Raises:
        StorageError: The storage cannot be read, or the manifest is none.
    """
    manifest = ObjectFolder(address).read(MANIFEST)
    if manifest is None:
        return None
    try:
        return sha256_json(FolderListing.model_validate_json(manifest).files)
    except ValidationError as error:
        raise StorageError(f"{address}/{MANIFEST}: no manifest of ours. Write the folder again.") from error


def _listing_of(folder: Path) -> tuple[str, bytes]:
    """Return the name and the bytes of what lists a folder's files, whose sha256 names the folder."""
    if (folder / MANIFEST).is_file():
        return MANIFEST, (folder / MANIFEST).read_bytes()
    files = file_digests(folder)
    return LISTING, canonical_json({"sha256": sha256_json(files), "files": files})


def _read_listing(remote: ObjectFolder) -> tuple[str, bytes]:
    """Return the name and the bytes of what lists a stored folder's files. Their sha256 ends the address."""
    digest = content_digest(remote.address)
    for _ in range(READS):
        marker, listing = MANIFEST, remote.read(MANIFEST)
        if listing is None:
            marker, listing = LISTING, remote.read(LISTING)
        if listing is None:
            raise EditLoopError(f"{remote.address}: nothing is stored there. Run the step that writes it again.")
        if sha256_bytes(listing) == digest:
            return marker, listing
    raise _damaged(remote, marker)


def _fetch_checked(remote: ObjectFolder, digests: Mapping[str, str], target: Path) -> None:
    """Download files and compare them with their sha256; those that differ are fetched again."""
    missing = list(digests)
    for attempt in range(READS):
        remote.download(missing, target)
        missing = [name for name in missing if sha256_file(target / name) != digests[name]]
        if not missing:
            return
        log.warning("%s: %s damaged (try %d of %d)", remote.address, ", ".join(missing), attempt + 1, READS)
    raise _damaged(remote, missing[0])


def _damaged(remote: ObjectFolder, name: str) -> StorageError:
    return StorageError(
        f"{remote.address}/{name}: is not what was stored, {READS} times. Delete the folder there and run the step "
        "that writes it again."
    )

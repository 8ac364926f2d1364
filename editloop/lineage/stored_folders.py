"""Folders that steps hand on through object storage, where EDITLOOP_OBJECTS is set.

KFP's artifact is then a small JSON file with the folder's content address. A step fetches what it reads of its inputs
into a cache on its node, which a later step on that node uses again.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

from pydantic import ByteSize, Field, ValidationError

from editloop.content import sha256_json, write_file
from editloop.environment import EnvironmentSettings
from editloop.file_lock import file_lock
from editloop.lineage import tracking
from editloop.lineage.stage import Stage
from editloop.object_folders import content_digest, fetch_folder, fetch_named_folder, has_folder, put_folder
from editloop.object_storage import is_address
from editloop.settings_file import FrozenModel

LARGEST_POINTER = 2000
"""Bytes. A larger file is no pointer, and is not read to see whether it is one."""


class StoredFolderSettings(EnvironmentSettings):
    """Where steps keep what they hand on."""

    objects: str | None = Field(None, pattern=r"^s3://[^/]+")
    """s3://BUCKET/PREFIX for what steps of a pipeline write, by content address. Unset: KFP copies the folders."""
    object_cache: ByteSize = ByteSize(50 * 10**9)
    """Most that a node keeps of fetched folders, below EDITLOOP_CACHE, such as 50GB. What is in use stays."""


class Artifact(Protocol):
    """The part of a KFP artifact that EditLoop uses."""

    path: str
    uri: str
    metadata: dict[str, Any]


class FolderPointer(FrozenModel):
    """Content of the file that stands for a stored folder."""

    address: str = Field(pattern=r"^s3://[^/]+/")
    """Content address."""
    sha256: str
    """What MLflow knows the folder by."""


def read_pointer(path: Path) -> FolderPointer | None:
    """Return what a file says of a stored folder; None for any other file or folder.

    Args:
        path: The file.
    """
    try:
        if not path.is_file() or path.stat().st_size > LARGEST_POINTER:
            return None
        return FolderPointer.model_validate_json(path.read_bytes())
    except ValidationError:
        return None


@contextmanager
def opened_inputs(stage: Stage, inputs: Mapping[str, Path | Artifact]) -> Iterator[dict[str, Path]]:
    """Yield where a stage finds its inputs. Those in object storage are fetched, and stay until the block ends.

    Args:
        stage: The stage.
        inputs: Paths or KFP artifacts, by the stage's argument.

    Raises:
        EditLoopError: An input cannot be fetched.
    """
    skip = {file.argument: file.skip for file in stage.inputs}
    with ExitStack() as stack:
        yield {name: stack.enter_context(_opened(value, skip[name])) for name, value in inputs.items()}


def stored_addresses(artifacts: Mapping[str, Path | Artifact]) -> dict[str, str]:
    """Return the content addresses of the artifacts that are in object storage, by name.

    Args:
        artifacts: Paths or KFP artifacts.
    """
    pointers = {
        name: read_pointer(Path(value.path)) for name, value in artifacts.items() if not isinstance(value, Path)
    }
    return {name: pointer.address for name, pointer in pointers.items() if pointer}


def store_outputs(outputs: Mapping[str, Path | Artifact]) -> dict[str, str]:
    """Put the folders that a step wrote into object storage, if EDITLOOP_OBJECTS is set.

    Args:
        outputs: Paths, which stay as they are, or KFP artifacts.

    Returns:
        The content addresses of the stored folders, by name.

    Raises:
        EditLoopError: The storage cannot be written.
    """
    objects = StoredFolderSettings().objects
    folders = {name: Path(value.path) for name, value in outputs.items() if not isinstance(value, Path)}
    return {name: put_folder(path, objects) for name, path in folders.items() if objects and path.is_dir()}


def replace_by_pointer(folder: Path, address: str) -> None:
    """Replace a stored folder by the file that stands for it.

    Args:
        folder: The folder.
        address: Its content address.
    """
    pointer = FolderPointer(address=address, sha256=tracking.digest(folder))
    shutil.rmtree(folder)
    write_file(folder, pointer.model_dump_json(indent=1) + "\n")


def recorded_folder(tags: Mapping[str, str], name: str, *, skip: Collection[str] = ()) -> Path | None:
    """Return an input or output of a step by the tags of its MLflow run, fetched where it is in object storage.

    Args:
        tags: Tags of the run.
        name: Name of the input or output.
        skip: Shell patterns of files that need not be fetched.

    Returns:
        The path, which may be one of another machine; None where the run has none.

    Raises:
        EditLoopError: It cannot be fetched.
    """
    if address := tags.get(f"editloop.object.{name}"):
        with _cached(address, skip) as folder:
            return folder
    recorded = tags.get(f"editloop.uri.{name}")
    return Path(recorded) if recorded else None


@contextmanager
def _opened(value: Path | Artifact, skip: Collection[str]) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
        return
    path = Path(value.path)
    if pointer := read_pointer(path):
        with _cached(pointer.address, skip) as folder:
            yield folder
    elif is_address(value.uri) and not path.exists():  # kfp.local leaves what an importer names where it is
        with tempfile.TemporaryDirectory() as temporary:
            fetch_named_folder(value.uri, Path(temporary) / "input")
            yield Path(temporary) / "input"
    else:
        yield path


@contextmanager
def _cached(address: str, skip: Collection[str]) -> Iterator[Path]:
    """Yield a stored folder, from the cache if it is there; no process removes it before the block ends."""
    cache = tracking.TrackingSettings().cache / "objects"
    cache.mkdir(parents=True, exist_ok=True)
    digest = content_digest(address)
    folder = cache / (f"{digest}-{sha256_json(sorted(skip))[:16]}" if skip else digest)
    used = folder.with_suffix(".used")
    with used.open("a") as in_use:
        fcntl.flock(in_use, fcntl.LOCK_SH)
        with file_lock(folder.with_suffix(".lock")):  # one process fetches, others wait for it
            if not has_folder(folder, address, skip=skip):
                for cut_off in cache.glob(f".{folder.name}.*"):
                    shutil.rmtree(cut_off)
                fetch_folder(address, folder, skip=skip)
                _remove_unused(cache, StoredFolderSettings().object_cache)
            used.touch()
        yield folder


def _remove_unused(cache: Path, limit: int) -> None:
    """Remove the folders that were not used for longest, until the others are within the limit."""
    folders = sorted((path for path in cache.glob("[!.]*") if path.is_dir()), key=_last_use)
    sizes = {path: sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) for path in folders}
    for path in folders:
        if sum(sizes.values()) <= limit:
            return
        with path.with_suffix(".used").open("a") as in_use:
            try:
                fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            shutil.rmtree(path)
            del sizes[path]


def _last_use(folder: Path) -> float:
    return folder.with_suffix(".used").stat().st_mtime

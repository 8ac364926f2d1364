"""Copy of a training's folder in object storage, so that a job on another node resumes from the last checkpoint.

A pod's own disk is gone with the pod. Where EDITLOOP_CHECKPOINTS is an s3:// address, a thread of the step copies each
complete checkpoint there while the ranks go on, its manifest last: a folder without one does not exist. Endpoint and
credentials come from AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import logging
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError
from editloop.work_dir import WorkDirSettings

log = logging.getLogger(__name__)

MIRROR_SECONDS = 5.0
"""Pause between two looks for new checkpoints."""
TRANSFERS = 8
"""Files that are copied at a time."""
COMPLETE_FOLDERS = ("step-*", "best")
"""Folders of a training that have a manifest, and are copied whole."""
LOOSE_FILES = ("curves.jsonl", "curves-sent.json", "watch/**/*")
"""Further files, which grow while the training runs."""


class CheckpointMirror:
    """Copy of one training's folder."""

    def __init__(self, folder: Path, address: str):
        """Take the two places.

        Args:
            folder: The training's folder.
            address: s3://BUCKET/PREFIX of the copy.
        """
        import s3fs

        self.folder, self.address = folder, address.rstrip("/")
        self.remote = s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
        self._sizes: dict[str, tuple[int, float]] = {}

    def restore(self) -> None:
        """Copy the newest intact checkpoint to an empty folder, and what belongs to it. One that is damaged is passed
        over."""
        if any(self.folder.glob(f"step-*/{MANIFEST}")):
            return
        names = self._names()
        for step in sorted((name for name in self._complete(names) if name.startswith("step-")), reverse=True):
            self._download(name for name in names if name.startswith(f"{step}/"))
            try:
                read_manifest(self.folder / step, check=True)
            except EditLoopError as error:
                log.warning("%s/%s: passed over, %s", self.address, step, error)
                shutil.rmtree(self.folder / step)
                continue
            self._download(name for name in names if not name.startswith("step-"))
            log.info("%s: goes on at %s of %s", self.folder.name, step, self.address)
            return

    def push(self) -> None:
        """Copy what is new, and remove copies of checkpoints that the training has deleted."""
        names = self._names()
        present = {
            path.name: path
            for pattern in COMPLETE_FOLDERS
            for path in self.folder.glob(pattern)
            if (path / MANIFEST).is_file()
        }
        for name, path in present.items():
            self._push_folder(name, path, names)
        self._push_loose_files()
        for gone in sorted(self._complete(names) - present.keys()):
            self.remote.rm_file(f"{self.address}/{gone}/{MANIFEST}")  # first: without it the rest does not count
            self.remote.rm(f"{self.address}/{gone}", recursive=True)

    def read(self, name: str) -> bytes | None:
        """Return a file of the copy; None where there is none."""
        try:
            data: bytes = self.remote.cat_file(f"{self.address}/{name}")
        except FileNotFoundError:
            return None
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write a file of the copy."""
        self.remote.pipe_file(f"{self.address}/{name}", data)

    def restore_loose_files(self) -> None:
        """Copy the files that grow while a training runs, in their last state."""
        self._download(name for name in self._names() if any(fnmatch(name, p) for p in LOOSE_FILES))

    def remove(self) -> None:
        """Remove the copy."""
        if self.remote.exists(self.address):
            self.remote.rm(self.address, recursive=True)

    def _push_folder(self, name: str, path: Path, names: set[str]) -> None:
        """Copy a complete folder, unless the copy has the same manifest."""
        manifest = (path / MANIFEST).read_bytes()
        target = f"{self.address}/{name}/{MANIFEST}"
        if f"{name}/{MANIFEST}" in names:
            if self.remote.cat_file(target) == manifest:
                return
            self.remote.rm_file(target)
        files = [file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(lambda file: self._put(file), files))
        self.remote.pipe_file(target, manifest)

    def _push_loose_files(self) -> None:
        for pattern in LOOSE_FILES:
            for file in self.folder.glob(pattern):
                if file.is_file():
                    stat = file.stat()
                    state = (stat.st_size, stat.st_mtime)
                    key = str(file.relative_to(self.folder))
                    if self._sizes.get(key) != state:
                        self._put(file)
                        self._sizes[key] = state

    def _put(self, file: Path) -> None:
        self.remote.put_file(str(file), f"{self.address}/{file.relative_to(self.folder).as_posix()}")

    def _download(self, names: Any) -> None:
        def fetch(name: str) -> None:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self.remote.get_file(f"{self.address}/{name}", str(target))

        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(fetch, names))

    def _names(self) -> set[str]:
        """Return the names of all files of the copy, relative to it."""
        prefix = f"{self.address.removeprefix('s3://')}/"
        return {path.removeprefix(prefix) for path in self.remote.find(self.address)}

    def _complete(self, names: set[str]) -> set[str]:
        """Return the folders of the copy that have a manifest."""
        return {
            name.removesuffix(f"/{MANIFEST}")
            for name in names
            if name.endswith(f"/{MANIFEST}") and name.count("/") == 1
        }


def mirror_of(folder: Path) -> CheckpointMirror | None:
    """Return the mirror of a training's folder; None where checkpoints stay on this machine.

    Args:
        folder: The training's folder, named after what is trained.
    """
    address = WorkDirSettings().checkpoint_bucket
    return CheckpointMirror(folder, f"{address}/{folder.name}") if address else None


@contextmanager
def mirrored(folder: Path) -> Iterator[None]:
    """Keep a training's folder in object storage within the block, and begin with what is there.

    An error of the storage at the start ends the block. Later ones are logged, and the training goes on.

    Args:
        folder: The training's folder.

    Raises:
        EditLoopError: The storage cannot be read at the start.
    """
    mirror = mirror_of(folder)
    if mirror is None:
        yield
        return
    from botocore.exceptions import BotoCoreError

    try:
        mirror.restore()
    except (BotoCoreError, OSError) as error:
        raise EditLoopError(
            f"{mirror.address}: checkpoints cannot be read ({error}). Check EDITLOOP_CHECKPOINTS and the storage."
        ) from error
    over = threading.Event()

    def keep_pushing() -> None:
        is_failing = False
        is_over = False
        while not is_over:
            is_over = over.wait(MIRROR_SECONDS)
            try:
                mirror.push()
                is_failing = False
            except Exception as error:  # whatever the storage raises, the training goes on
                if not is_failing:
                    log.warning("%s: checkpoints do not go there (%s); tried again", mirror.address, error)
                is_failing = True

    thread = threading.Thread(target=keep_pushing, daemon=True, name="checkpoint mirror")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

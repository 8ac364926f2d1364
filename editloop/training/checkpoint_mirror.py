"""Copy of a training's folder in object storage, so that a job on another node resumes from the last checkpoint.

A pod's own disk is gone with the pod. Where EDITLOOP_CHECKPOINTS is an s3:// address, a thread of the step copies each
complete checkpoint there while the ranks go on, its manifest last: a folder without one does not exist.
"""

import logging
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from editloop.background import running_beside
from editloop.content import MANIFEST, read_manifest
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder, StorageError
from editloop.work_dir import WorkDirSettings

log = logging.getLogger(__name__)

MIRROR_SECONDS = 5.0
"""Pause between two looks for new checkpoints."""
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
        self.folder, self.remote = folder, ObjectFolder(address)
        self._sizes: dict[Path, tuple[int, float]] = {}

    def restore(self) -> None:
        """Copy the newest intact checkpoint to an empty folder, and what belongs to it. One that is damaged is passed
        over."""
        if any(self.folder.glob(f"step-*/{MANIFEST}")):
            return
        names = self.remote.names()
        for step in sorted((name for name in _complete(names) if name.startswith("step-")), reverse=True):
            self.remote.download((name for name in names if name.startswith(f"{step}/")), self.folder)
            try:
                read_manifest(self.folder / step, check=True)
            except EditLoopError as error:
                log.warning("%s/%s: passed over, %s", self.remote.address, step, error)
                shutil.rmtree(self.folder / step)
                continue
            self.remote.download((name for name in names if not name.startswith("step-")), self.folder)
            log.info("%s: goes on at %s of %s", self.folder.name, step, self.remote.address)
            return

    def push(self) -> None:
        """Copy what is new, and remove copies of checkpoints that the training has deleted."""
        names = self.remote.names()
        present = {
            path.name: path
            for pattern in COMPLETE_FOLDERS
            for path in self.folder.glob(pattern)
            if (path / MANIFEST).is_file()
        }
        for name, path in present.items():
            self._push_folder(name, path, names)
        self._push_loose_files()
        for gone in sorted(_complete(names) - present.keys()):
            self.remote.delete([f"{gone}/{MANIFEST}"])  # first: without it the rest does not count
            self.remote.delete(name for name in names if name.startswith(f"{gone}/"))

    def restore_loose_files(self) -> None:
        """Copy the files that grow while a training runs, in their last state."""
        names = self.remote.names()
        self.remote.download((name for name in names if any(fnmatch(name, part) for part in LOOSE_FILES)), self.folder)

    def remove(self) -> None:
        """Remove the copy."""
        self.remote.delete(self.remote.names())

    def _push_folder(self, name: str, path: Path, names: set[str]) -> None:
        """Copy a complete folder, unless the copy has the same manifest."""
        manifest = (path / MANIFEST).read_bytes()
        target = f"{name}/{MANIFEST}"
        if target in names:
            if self.remote.read(target) == manifest:
                return
            self.remote.delete([target])
        self._upload(file for file in path.rglob("*") if file.is_file() and file != path / MANIFEST)
        self.remote.write(target, manifest)

    def _push_loose_files(self) -> None:
        """Copy the further files that have changed since the last call."""
        sizes = {
            file: (file.stat().st_size, file.stat().st_mtime)
            for pattern in LOOSE_FILES
            for file in self.folder.glob(pattern)
            if file.is_file()
        }
        self._upload(file for file, state in sizes.items() if self._sizes.get(file) != state)
        self._sizes = sizes

    def _upload(self, files: Iterable[Path]) -> None:
        self.remote.upload({file.relative_to(self.folder).as_posix(): file for file in files})


def _complete(names: Iterable[str]) -> set[str]:
    """Return the folders that have a manifest, of the objects below a training's address."""
    return {
        name.removesuffix(f"/{MANIFEST}") for name in names if name.endswith(f"/{MANIFEST}") and name.count("/") == 1
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
    try:
        mirror.restore()
    except StorageError as error:
        raise EditLoopError(f"EDITLOOP_CHECKPOINTS: {error}") from error

    def keep_pushing(over: threading.Event) -> None:
        is_failing = False
        is_over = False
        while not is_over:
            is_over = over.wait(MIRROR_SECONDS)
            try:
                mirror.push()
                is_failing = False
            except Exception as error:  # whatever the storage raises, the training goes on
                if not is_failing:
                    log.warning("%s: checkpoints do not go there (%s); tried again", mirror.remote.address, error)
                is_failing = True

    with running_beside(keep_pushing, "checkpoint mirror"):
        yield

"""Pictures of a suite as its files are read: each is decoded once, to tell a faulty one before a judge is asked."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from annotation.formats.picture_file import read_picture
from components.suites.suite import PictureAt
from infra.content import sha256_bytes
from infra.errors import EditLoopError

WAITING = 32
"""Encoded pictures that may wait to be decoded."""


class Shelf:
    """Takes pictures in, as often as they come, and says which cannot be read."""

    def __init__(self, root: Path, looked: Callable[[], object] = lambda: None):
        """root: the folder that paths in a suite's files are relative to. looked: called for each picture."""
        self.root, self._looked = root, looked
        self.faults: list[str] = []
        self._seen: dict[str, Future[str]] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def put(self, name: str, data: bytes, read: Callable[[], bytes]) -> PictureAt:
        """An encoded picture that lies where `read` finds it; `name` is what messages call it."""
        self._looked()
        sha256 = sha256_bytes(data)
        if sha256 not in self._seen:
            waiting = [one for one in self._seen.values() if not one.done()] if len(self._seen) >= WAITING else []
            if len(waiting) >= WAITING:
                waiting[0].result()
            self._seen[sha256] = self._pool.submit(_fault, name, data)
        return PictureAt(name, sha256, read)

    def file(self, path: str, name: str) -> PictureAt | None:
        """A picture file by its path below the root; None, with a fault, where there is none."""
        below = PurePosixPath(path)
        if not path or below.is_absolute() or ".." in below.parts:
            self.faults.append(f"{name}: {path!r} is not a path below {self.root}")
            return None
        whole = self.root / below
        try:
            return self.put(f"{name} ({path})", whole.read_bytes(), whole.read_bytes)
        except (OSError, ValueError):
            self.faults.append(f"{name}: no picture {whole}")
            return None

    def close(self) -> list[str]:
        """All faults, those of missing pictures first; waits for what is being decoded."""
        with self._pool:
            decoded = [found for one in self._seen.values() if (found := one.result())]
        return self.faults + decoded


def _fault(name: str, data: bytes) -> str:
    try:
        read_picture(data, name)
    except EditLoopError as error:
        return str(error)
    return ""

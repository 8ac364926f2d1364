"""Pictures of a suite as its files are read: each is decoded once, to tell a faulty one before a judge is asked."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from editloop.content import sha256_bytes
from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.evaluation.suites.suite import PictureRef

MAX_PENDING = 32
"""Encoded pictures that may wait to be decoded."""


class PictureLoader:
    """Takes pictures in, as often as they come, and says which cannot be read."""

    def __init__(self, root: Path, on_picture: Callable[[], object] = lambda: None):
        """root: the folder that paths in a suite's files are relative to. looked: called for each picture."""
        self.root, self._looked = root, on_picture
        self.faults: list[str] = []
        self._seen: dict[str, Future[str]] = {}
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def put(self, name: str, data: bytes, read: Callable[[], bytes]) -> PictureRef:
        """An encoded picture that lies where `read` finds it; `name` is what messages call it."""
        self._looked()
        sha256 = sha256_bytes(data)
        if sha256 not in self._seen:
            pending = (
                [future for future in self._seen.values() if not future.done()]
                if len(self._seen) >= MAX_PENDING
                else []
            )
            if len(pending) >= MAX_PENDING:
                pending[0].result()
            self._seen[sha256] = self._pool.submit(_decode_fault, name, data)
        return PictureRef(name, sha256, read)

    def file(self, path: str, name: str) -> PictureRef | None:
        """A picture file by its path below the root; None, with a fault, where there is none."""
        below = PurePosixPath(path)
        if not path or below.is_absolute() or ".." in below.parts:
            self.faults.append(f"{name}: {path!r} is not a path below {self.root}")
            return None
        full_path = self.root / below
        try:
            return self.put(f"{name} ({path})", full_path.read_bytes(), full_path.read_bytes)
        except (OSError, ValueError):
            self.faults.append(f"{name}: no picture {full_path}")
            return None

    def close(self) -> list[str]:
        """All faults, those of missing pictures first; waits for what is being decoded."""
        with self._pool:
            decode_faults = [fault for future in self._seen.values() if (fault := future.result())]
        return self.faults + decode_faults


def _decode_fault(name: str, data: bytes) -> str:
    try:
        read_picture(data, name)
    except EditLoopError as error:
        return str(error)
    return ""

"""Loads a suite's images: decodes each once and collects faults, before a judge scores anything."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from editloop.content import sha256_bytes
from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.evaluation.suites.suite import PictureRef

MAX_PENDING = 32
"""Most encoded images in memory that wait to be decoded."""


class PictureLoader:
    """Checks a suite's images: deduplicates them, decodes each once in the background, and collects faults."""

    def __init__(self, root: Path, on_picture: Callable[[], object] = lambda: None):
        """Start with no images.

        Args:
            root: The folder that paths in the suite's files are relative to.
            on_picture: Called for each image, for a progress display.
        """
        self.root, self._looked = root, on_picture
        self.faults: list[str] = []
        self._seen: dict[str, Future[str]] = {}
        self._pending: deque[Future[str]] = deque()
        """The latest ones, oldest first."""
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "decode")

    def put(self, name: str, data: bytes, read: Callable[[], bytes]) -> PictureRef:
        """Register an encoded image, and decode it in the background unless the same bytes were registered before.

        Args:
            name: Name in messages.
            data: The encoded image.
            read: Returns the same bytes again later.

        Returns:
            The reference to the image; a fault in it shows in `close`.
        """
        self._looked()
        sha256 = sha256_bytes(data)
        if sha256 not in self._seen:
            if len(self._pending) == MAX_PENDING:
                self._pending.popleft().result()
            self._seen[sha256] = self._pool.submit(_decode_fault, name, data)
            self._pending.append(self._seen[sha256])
        return PictureRef(name, sha256, read)

    def file(self, path: str, name: str) -> PictureRef | None:
        """Register an image file.

        Args:
            path: Path relative to the root, below it.
            name: Name in messages.

        Returns:
            The reference to the image; None, with a fault in `faults`, if the file cannot be read or the path is not
            below the root.
        """
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
        """Wait for the decoding to end and return all faults, those of missing images first."""
        with self._pool:
            decode_faults = [fault for future in self._seen.values() if (fault := future.result())]
        return self.faults + decode_faults


def _decode_fault(name: str, data: bytes) -> str:
    try:
        read_picture(data, name)
    except EditLoopError as error:
        return str(error)
    return ""

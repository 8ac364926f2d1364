"""Loads a suite's images: decodes each file once and collects faults, before a judge scores anything."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from editloop.content import sha256_bytes
from editloop.data.edits_file import path_fault
from editloop.data.picture_file import picture_sha256, read_picture, read_picture_file
from editloop.errors import EditLoopError
from editloop.evaluation.suites.suite import PictureRef

MAX_PENDING = 32
"""Most encoded images in memory that wait to be decoded."""


class DecodedFile(NamedTuple):
    """What decoding a file came to."""

    sha256: str
    """Identity of its pixels; empty if it is broken."""
    fault: str


class PictureLoader:
    """Checks a suite's images: decodes each file once in the background, and collects faults."""

    def __init__(self, root: Path, on_picture: Callable[[], object] = lambda: None):
        """Start with no images.

        Args:
            root: The folder that paths in the suite's files are relative to.
            on_picture: Called for each image, for a progress display.
        """
        self.root, self._looked = root, on_picture
        self.faults: list[str] = []
        self._decoded: dict[str, Future[DecodedFile]] = {}
        """By the digest of the file's bytes, so that equal files are decoded once."""
        self._pending: deque[Future[DecodedFile]] = deque()
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
        file_sha256 = sha256_bytes(data)
        if file_sha256 not in self._decoded:
            if len(self._pending) == MAX_PENDING:
                self._pending.popleft().result()
            self._decoded[file_sha256] = self._pool.submit(_decode, name, data)
            self._pending.append(self._decoded[file_sha256])
        return PictureRef(name, partial(_identity, self._decoded[file_sha256]), read)

    def file(self, path: str, name: str) -> PictureRef | None:
        """Register an image file.

        Args:
            path: Path relative to the root, below it.
            name: Name in messages.

        Returns:
            The reference to the image; None, with a fault in `faults`, if it is no file that can be read, or the path
            is not below the root.
        """
        below = PurePosixPath(path)
        if not path or below.is_absolute() or ".." in below.parts:
            self.faults.append(f"{name}: {path!r} is not a path below {self.root}")
            return None
        if fault := path_fault(self.root, path):
            self.faults.append(f"{name}: {path!r} {fault}")
            return None
        full_path = self.root / below
        try:
            return self.put(f"{name} ({path})", read_picture_file(full_path), partial(read_picture_file, full_path))
        except EditLoopError as error:
            self.faults.append(f"{name}: no picture ({error})")
            return None

    def close(self) -> list[str]:
        """Wait for the decoding to end and return all faults, those of missing images first."""
        with self._pool:
            decode_faults = [fault for future in self._decoded.values() if (fault := future.result().fault)]
        return self.faults + decode_faults


def _decode(name: str, data: bytes) -> DecodedFile:
    try:
        return DecodedFile(picture_sha256(read_picture(data, name)), "")
    except EditLoopError as error:
        return DecodedFile("", str(error))


def _identity(decoded: Future[DecodedFile]) -> str:
    return decoded.result().sha256

"""Import of published data row by row, in bounded memory.

Each image is decoded once and stored by its identity. Rows are read in order and worked on by a thread a processor.
Rows with faults are left out and listed. What is done is kept in a journal beside the output, so that a call that was
stopped goes on there.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import pyarrow as pa
from PIL import _imaging

from editloop.content import sha256_file, sha256_json
from editloop.data.picture_file import read_picture, read_picture_file, store_png
from editloop.errors import EditLoopError, listed_faults
from editloop.progress import track
from editloop.work_dir import work_dir

ROWS_AHEAD = 8
"""Rows in work for each thread: enough to keep it busy, few enough to hold their images."""
BLOCKS_KEPT = 4
"""Blocks of memory, of at most 16 MB, that Pillow keeps for each thread. By default it gives each image's memory back
to the system, and new memory takes as long as half of the decoding."""
FLUSHED_ROWS = 64
"""Rows after which the journal is written out: what a kill costs at most."""
FAULTS_SHOWN = 100
"""Rows left out that a message lists; `skipped.txt` lists all."""
SKIPPED = "skipped.txt"

EncodedPicture = bytes | Path
"""An image as its file's bytes, or the path of its file."""
Row = TypeVar("Row")
Stored = Any
"""What the journal keeps of a row: JSON data, and no text, which is a fault."""


class StoredPicture(NamedTuple):
    """An image that was stored."""

    sha256: str
    """Its identity: the name of its file."""
    file_sha256: str
    """sha256 of the file, or of the bytes, that it was read from."""


class PictureStore:
    """Stores images by their identity. An image file that comes again is not decoded again. Threads may share it."""

    def __init__(self, folder: Path):
        """Take the folder.

        Args:
            folder: Folder of the images, `<sha256>.png`.
        """
        self._folder, self._lock = folder, Lock()
        self._stored: dict[bytes, StoredPicture | Future[StoredPicture]] = {}
        """By digest of the encoded bytes, or by path. A future while a thread works on the image, and where it cannot
        be read: of 40,000 images, futures would take 75 MB, and what is stored takes 12."""

    def put(self, picture: EncodedPicture, name: str) -> StoredPicture:
        """Store an image.

        Args:
            picture: The image.
            name: What messages call it.

        Raises:
            EditLoopError: It cannot be read as an image.
        """
        key = hashlib.sha256(picture).digest() if isinstance(picture, bytes) else b"path " + os.fsencode(picture)
        with self._lock:
            stored = self._stored.get(key)
            if stored is None:
                mine = self._stored[key] = Future()
        if stored is not None:
            return stored.result() if isinstance(stored, Future) else stored
        try:
            data = picture if isinstance(picture, bytes) else read_picture_file(picture)
            image = read_picture(data, name)
            file_sha256 = key.hex() if data is picture else hashlib.sha256(data).hexdigest()
            result = StoredPicture(store_png(image, self._folder), file_sha256)
        except BaseException as error:
            mine.set_exception(error)
            raise
        mine.set_result(result)
        self._stored[key] = result
        return result


Reader = Callable[[Path, int], Iterator[tuple[str, Row | str]]]
"""Yields the rows of a file but for some at its start: where each stands, and the row or what is wrong with it."""
Storer = Callable[[Row, PictureStore], Stored]
"""Stores a row's images, and returns what the journal keeps of the row, or what is wrong with it."""


class RowImport:
    """An import of some files: the journal of its rows, its images, and the rows that were left out."""

    def __init__(self, path: Path, files: Sequence[Path], output: Path, settings: object = None):
        """Hash the files, and find what an earlier call has done.

        Args:
            path: The file or folder that the user gave.
            files: The files with rows.
            output: What the import writes; its work is kept in the `work_dir` of that.
            settings: What else decides the rows' values, as JSON data: with other settings, all begins anew.
        """
        self.path = path
        self.files = {str(file.relative_to(path)) if path.is_dir() else file.name: file for file in files}
        hashed = track(self.files.items(), "files hashed", total=len(files))
        self.digests = {name: sha256_file(file) for name, file in hashed}
        what = self.digests if settings is None else [self.digests, settings]
        self.work = work_dir(output) / f"import-{sha256_json(what)[:16]}"
        self.skipped: list[str] = []
        """A message for each row that was left out."""

    @property
    def images(self) -> Path:
        """Folder of the images, by identity."""
        return self.work / "images"

    def store_rows(
        self, read: Reader[Row], store: Storer[Row], description: str, total: int | None = None
    ) -> Iterator[tuple[str, Stored]]:
        """Yield each row's location and what is kept of it, in order; rows with faults are put among `skipped`.

        Args:
            read: Reads the rows of a file.
            store: Stores a row. Threads call it.
            description: What the progress bar says.
            total: Number of rows, where it is known.
        """
        for location, result in track(self._results(read, store), description, total=total):
            if isinstance(result, str):
                self.skip(location, result)
            else:
                yield location, result

    def skip(self, location: str, fault: str) -> None:
        """Leave a row out.

        Args:
            location: Where it stands.
            fault: What is wrong with it.
        """
        self.skipped.append(f"{location}: {fault}")

    def stored_rows(self) -> Iterator[Stored]:
        """Yield what was kept of each row, in order, once `store_rows` has ended."""
        for _, _, value in self._journal_lines():
            if not isinstance(value, str):
                yield value

    def check(self, count: int, *, strict: bool) -> None:
        """Refuse an import with nothing to keep or, where that is asked for, with rows left out. Its work is removed.

        Args:
            count: Rows to be kept.
            strict: Whether no row may be left out.

        Raises:
            EditLoopError: The import is refused.
        """
        if self.skipped and (strict or not count):
            self.remove()
            faults = len(self.skipped)
            heading = f"{self.path}: {faults} row{'s' * (faults > 1)} with faults; nothing was written."
            raise listed_faults(heading, self.skipped, FAULTS_SHOWN)
        if not count:
            self.remove()
            raise EditLoopError(f"{self.path}: holds no rows.")

    def link_images(self, folder: Path, images: Iterable[str]) -> None:
        """Put stored images into a folder. They also stay where they are, for another try if this call is stopped.

        Args:
            folder: The folder; it is created.
            images: Identities of the images.
        """
        folder.mkdir()
        for image in images:
            name = f"{image}.png"
            try:
                os.link(self.images / name, folder / name)
            except OSError:  # another file system, or one without links
                shutil.copyfile(self.images / name, folder / name)

    def skipped_text(self) -> str:
        """Return the content of `skipped.txt`: a line for each row that was left out."""
        return "".join(f"{line}\n" for line in self.skipped)

    def remove(self) -> None:
        """Remove what was kept for another call."""
        shutil.rmtree(self.work, ignore_errors=True)

    def _results(self, read: Reader[Row], store: Storer[Row]) -> Iterator[tuple[str, Stored | str]]:
        """Yield location and result of each row in order, first those that an earlier call has stored."""
        self.images.mkdir(parents=True, exist_ok=True)
        _drop_cut_line(self._journal)
        done = dict.fromkeys(self.files, 0)
        for name, place, value in self._journal_lines():
            done[name] += 1
            yield f"{self.files[name]}: {place}", value
        pictures = PictureStore(self.images)
        with _pool() as pool, self._journal.open("a", encoding="utf-8") as lines:
            begun = 0
            for name, file in self.files.items():
                for place, result in _ordered(pool, store, pictures, read(file, done[name])):
                    lines.write(json.dumps([name, place, result], ensure_ascii=False) + "\n")
                    begun += 1
                    if begun % FLUSHED_ROWS == 0:
                        lines.flush()
                    yield f"{file}: {place}", result

    @property
    def _journal(self) -> Path:
        return self.work / "journal.jsonl"

    def _journal_lines(self) -> Iterator[tuple[str, str, Stored | str]]:
        if self._journal.is_file():
            with self._journal.open("rb") as lines:
                for line in lines:
                    name, place, value = json.loads(line)
                    yield name, place, value


def _drop_cut_line(journal: Path) -> None:
    """Take a cut-off last line, which a kill leaves, off a journal."""
    if not journal.is_file():
        return
    whole = 0
    with journal.open("r+b") as stream:
        for line in stream:
            if line.endswith(b"\n"):
                whole += len(line)
        stream.truncate(whole)


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """A thread a processor. Rows that have not begun when the block ends are not begun."""
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads, "pictures")
    with _kept_memory(BLOCKS_KEPT * threads):
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _kept_memory(blocks: int) -> Iterator[None]:
    """Let Pillow keep memory of images, and Arrow take its memory from the C library.

    The library keeps freed memory by the size of the pieces that it hands out. Arrow's are large enough that it also
    keeps what numpy and zlib need for a picture; otherwise the system clears each page of it anew, a tenth of the time.
    """
    blocks_before, arrow_before = _imaging.get_blocks_max(), pa.default_memory_pool()
    _imaging.set_blocks_max(blocks)
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        _imaging.set_blocks_max(blocks_before)
        pa.set_memory_pool(arrow_before)


def _ordered(
    pool: ThreadPoolExecutor, store: Storer[Row], pictures: PictureStore, rows: Iterator[tuple[str, Row | str]]
) -> Iterator[tuple[str, Stored | str]]:
    """Yield the rows' results in order, a bounded number of rows being in work."""

    def work(row: Row | str) -> Stored | str:
        if isinstance(row, str):
            return row
        try:
            return store(row, pictures)
        except EditLoopError as error:
            return str(error)

    window: deque[tuple[str, Future[Stored]]] = deque()
    ahead = ROWS_AHEAD * (os.cpu_count() or 1)
    window.extend((place, pool.submit(work, row)) for place, row in islice(rows, ahead))
    while window:
        place, result = window.popleft()
        yield place, result.result()
        window.extend((place, pool.submit(work, row)) for place, row in islice(rows, 1))

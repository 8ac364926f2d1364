"""Import of EditReward's preference pairs as a candidates folder and a judgements folder, in bounded memory.

Each image is decoded once and stored by its identity. Rows are read in order and worked on by a thread a processor.
What is done is kept beside the output, so that a call that was stopped goes on there.
"""

import hashlib
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
from PIL import _imaging

from annotation.formats.editreward_pairs import EncodedPicture, RatedPair, Ratings, count_pairs, pair_files, read_pairs
from annotation.formats.judgements_folder import ImportedData, write_imported
from annotation.formats.ratings_table import SHOWN_FAULTS, UNKNOWN_TIME
from editloop.content import complete_folder, sha256_file, sha256_json, write_file
from editloop.data.edits_file import LONGEST_INSTRUCTION
from editloop.data.picture_file import load_image, read_picture, store_png
from editloop.data.vocabulary import Candidate, EditTask, Judgement, candidate_id, task_id
from editloop.errors import EditLoopError, listed_faults
from editloop.progress import track
from editloop.work_dir import work_dir

RATER = "editreward"
ROWS_AHEAD = 8
"""Rows in work for each thread: enough to keep it busy, few enough to hold their images."""
BLOCKS_KEPT = 4
"""Blocks of memory, of at most 16 MB, that Pillow keeps for each thread. By default it gives each image's memory back
to the system, and new memory takes as long as half of the decoding."""


class ImportReport(NamedTuple):
    """What an import made."""

    rows: int
    """Rows that became judgements."""
    tasks: int
    judgements: int
    skipped: tuple[str, ...]
    """A message for each row that was left out."""


class _StoredPair(NamedTuple):
    """A row whose images are stored, by their identities."""

    instruction: str
    source: str
    images: tuple[str, str]
    editors: tuple[str, str]
    ratings: tuple[Ratings, Ratings]


def import_pairs(path: Path, candidates: Path, judgements: Path, *, strict: bool = False) -> ImportReport:
    """Import preference pairs.

    Rows do not name their raters. Rows that give one image different scores must come from different people, so each
    row goes to the first of `editreward-1`, `editreward-2`, ... whose earlier ratings of the task it does not
    contradict. Both ratings of a row go to the same rater.

    Args:
        path: A parquet file of the published data set, a folder of them, or the trainer's rows as JSON.
        candidates: Candidates folder to write.
        judgements: Judgements folder to write. Rows that were left out are listed in its `skipped.txt`.
        strict: Refuse rows with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, no row is left, or `strict` and some rows have faults. Nothing is written.
    """
    files = pair_files(path)
    total = count_pairs(files)
    named = {str(file.relative_to(path)) if path.is_dir() else file.name: file for file in files}
    digests = {name: sha256_file(file) for name, file in named.items()}
    work = work_dir(candidates) / f"import-{sha256_json(digests)[:16]}"
    stored: list[_StoredPair] = []
    skipped: list[str] = []
    for location, result in track(_stored_rows(named, work), "pairs imported", total=total):
        if isinstance(result, _StoredPair):
            stored.append(result)
        else:
            skipped.append(f"{location}: {result}")
    if skipped and (strict or not stored):
        shutil.rmtree(work, ignore_errors=True)
        count = len(skipped)
        heading = f"{path}: {count} row{'s' * (count > 1)} with faults; nothing was written."
        raise listed_faults(heading, skipped, SHOWN_FAULTS)
    if not stored:
        raise EditLoopError(f"{path}: holds no rows.")
    tasks, raters = _tasks(stored)
    imported = list(_judgements(tasks, raters))
    with complete_folder(candidates, {"imported": path.name, "files": digests}) as folder:
        _link_images(work / "images", folder / "images", tasks)
        lines = [tasks[key].model_dump_json(by_alias=True) + "\n" for key in sorted(tasks)]
        write_file(folder / "tasks.jsonl", "".join(lines))
    origin = ImportedData(path.stem, "imported.json", json.dumps(digests, indent=2).encode())
    more = {"skipped.txt": "".join(f"{line}\n" for line in skipped)}
    write_imported(judgements, imported, list(tasks.values()), origin, candidates / "images", more)
    shutil.rmtree(work, ignore_errors=True)
    return ImportReport(len(stored), len(tasks), len(imported), tuple(skipped))


def _stored_rows(files: dict[str, Path], work: Path) -> Iterator[tuple[str, _StoredPair | str]]:
    """Yield location and result of each row in order, first those that an earlier call has stored."""
    images, journal = work / "images", work / "rows.jsonl"
    images.mkdir(parents=True, exist_ok=True)
    earlier = _journal_rows(journal)
    store = _PictureStore(images)
    with _pool() as pool, journal.open("a", encoding="utf-8") as lines:
        begun = 0
        for name, file in files.items():
            done = earlier.get(name, [])
            for number, result in enumerate(done, start=1):
                yield f"{file}: row {number}", result
            rows = read_pairs(file, skip=len(done))
            for number, result in enumerate(_ordered(pool, store, rows), start=len(done) + 1):
                value = result if isinstance(result, str) else list(result)
                lines.write(json.dumps([name, value], ensure_ascii=False) + "\n")
                begun += 1
                if begun % 64 == 0:
                    lines.flush()
                yield f"{file}: row {number}", result


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


def _journal_rows(journal: Path) -> dict[str, list[_StoredPair | str]]:
    """Return the results that an earlier call has stored, by their file; a cut-off last line is dropped."""
    earlier: dict[str, list[_StoredPair | str]] = {}
    if not journal.is_file():
        return earlier
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    journal.write_bytes(whole)
    for line in whole.splitlines():
        name, value = json.loads(line)
        if not isinstance(value, str):
            instruction, source, images, editors, ratings = value
            pair = (ratings[0][0], ratings[0][1]), (ratings[1][0], ratings[1][1])
            value = _StoredPair(instruction, source, tuple(images), tuple(editors), pair)
        earlier.setdefault(name, []).append(value)
    return earlier


def _ordered(
    pool: ThreadPoolExecutor, store: "_PictureStore", rows: Iterator[RatedPair | str]
) -> Iterator[_StoredPair | str]:
    """Yield the rows' results in order, a bounded number of rows being in work."""
    window: deque[Future[_StoredPair | str]] = deque()
    ahead = ROWS_AHEAD * (os.cpu_count() or 1)
    window.extend(pool.submit(store.put_pair, row) for row in islice(rows, ahead))
    while window:
        yield window.popleft().result()
        window.extend(pool.submit(store.put_pair, row) for row in islice(rows, 1))


class _PictureStore:
    """Stores images by their identity. An image file that comes again is not decoded again. Threads may share it."""

    def __init__(self, folder: Path):
        self._folder, self._lock = folder, Lock()
        self._stored: dict[bytes, Future[str]] = {}
        """Identities by digest of the encoded bytes, or by path; of 76,000 images some 50 MB."""

    def put_pair(self, row: RatedPair | str) -> _StoredPair | str:
        """Store a row's images; the row, or what is wrong with it."""
        if isinstance(row, str):
            return row
        if len(row.instruction) > LONGEST_INSTRUCTION:
            return f"instruction: {len(row.instruction):,} characters; at most {LONGEST_INSTRUCTION:,}"
        try:
            source, first, second = (
                self._put(picture, name)
                for picture, name in zip(
                    (row.source, row.edits[0].picture, row.edits[1].picture), ("source", "first", "second"), strict=True
                )
            )
        except EditLoopError as error:
            return str(error)
        if first == second:
            return "both edits are the same picture"
        editors = (row.edits[0].editor, row.edits[1].editor)
        return _StoredPair(
            row.instruction, source, (first, second), editors, (row.edits[0].ratings, row.edits[1].ratings)
        )

    def _put(self, picture: EncodedPicture, name: str) -> str:
        key = hashlib.sha256(picture).digest() if isinstance(picture, bytes) else b"path " + os.fsencode(picture)
        with self._lock:
            stored = self._stored.get(key)
            if stored is None:
                mine = self._stored[key] = Future()
        if stored is not None:
            return stored.result()
        try:
            image = read_picture(picture, name) if isinstance(picture, bytes) else load_image(picture)
            mine.set_result(store_png(image, self._folder))
        except BaseException as error:
            mine.set_exception(error)
            raise
        return mine.result()


def _tasks(rows: list[_StoredPair]) -> tuple[dict[str, EditTask], dict[str, list[dict[str, Ratings]]]]:
    """Return the tasks, and of each task every rater's ratings by candidate."""
    tasks: dict[str, EditTask] = {}
    candidates: dict[str, dict[str, Candidate]] = {}
    raters: dict[str, list[dict[str, Ratings]]] = {}
    for row in rows:
        key = task_id(row.source, row.instruction)
        tasks.setdefault(key, EditTask(task_id=key, name=key, instruction=row.instruction, source=row.source))
        row_ratings = {}
        for image, editor, ratings in zip(row.images, row.editors, row.ratings, strict=True):
            candidate = Candidate(candidate_id=candidate_id(key, image), image=image, editor=editor)
            candidates.setdefault(key, {}).setdefault(candidate.candidate_id, candidate)
            row_ratings[candidate.candidate_id] = ratings
        people = raters.setdefault(key, [])
        rater = next((person for person in people if all(person.get(c, r) == r for c, r in row_ratings.items())), None)
        if rater is None:
            people.append(rater := {})
        rater.update(row_ratings)
    for key, by_id in candidates.items():
        tasks[key] = tasks[key].model_copy(update={"candidates": tuple(by_id.values())})
    return tasks, raters


def _judgements(tasks: dict[str, EditTask], raters: dict[str, list[dict[str, Ratings]]]) -> Iterator[Judgement]:
    number = 0
    for key in sorted(tasks):
        positions = {candidate: k for k, candidate in enumerate(sorted(c.candidate_id for c in tasks[key].candidates))}
        for who, ratings in enumerate(raters[key], start=1):
            number += 1
            for candidate in sorted(ratings):
                yield Judgement.model_validate(
                    {
                        "task_id": key,
                        "candidate_id": candidate,
                        "annotator": f"{RATER}-{who}",
                        "if": ratings[candidate][0],
                        "vq": ratings[candidate][1],
                        "position": positions[candidate],
                        "annotation_id": number,
                        "created_at": UNKNOWN_TIME,
                    }
                )


def _link_images(stored: Path, folder: Path, tasks: dict[str, EditTask]) -> None:
    """Put the tasks' images into a folder. They also stay where they are, for another try if this call is stopped."""
    folder.mkdir()
    for image in {image for task in tasks.values() for image in (task.source, *(c.image for c in task.candidates))}:
        name = f"{image}.png"
        try:
            os.link(stored / name, folder / name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(stored / name, folder / name)

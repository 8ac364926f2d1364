"""Streaming reader of edits files of any length, for jobs that see each row once. `edits_file` reads a file at once.

All lines are checked before work starts. Images are not opened: among a million some are always missing or broken, so
the caller has to handle and count them.
"""

import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from editloop.data.edits_file import (
    EditRow,
    GivenCandidate,
    edits_files,
    file_lines,
    parse_line,
    path_fault,
    printable_json,
    repeated_id,
)
from editloop.errors import EditLoopError
from editloop.progress import track

TARGET = "target"
"""Editor of a candidate that is a row's target."""
MOST_FAULTS = 50
"""Most faults in one message; more would add nothing."""


@dataclass(frozen=True)
class Survey:
    """Result of checking an edits file once."""

    sha256: str
    """Of all lines that are not blank, in order."""
    tasks: int
    candidates: int


def survey_edits(path: Path, most_candidates: int | None = None, *, targets: bool = False) -> Survey:
    """Check every line of an edits file and count tasks and candidates, in a few bytes of memory per line.

    Args:
        path: An edits file, or a folder: then every `*.jsonl` below it is read.
        most_candidates: Count at most this many candidates of a row. None: all.
        targets: Count each row's target as its only candidate, as `stream_edits` does.

    Raises:
        EditLoopError: Some lines are not in the format, ids repeat, or paths leave the folder. The message lists up to
            MOST_FAULTS faults.
    """
    digest, ids, faults = hashlib.sha256(), array("q"), []
    candidates = 0
    for location, folder, text in track(_lines(path), description="edits checked"):
        digest.update(text + b"\n")
        line, line_faults = parse_line(location, text)
        if line is not None:
            ids.append(_id_hash(line.id))
            count = int(line.target is not None) if targets else len(line.candidates[:most_candidates])
            candidates += count
            line_faults += [
                f"{location}: {key} = {printable_json(name)}: {fault}"
                for key, name in line.pictures()
                if (fault := path_fault(folder, name))
            ]
        faults += line_faults
        if len(faults) >= MOST_FAULTS:
            break
    if not faults and len(np.unique(np.frombuffer(ids, np.int64))) < len(ids):
        faults = _doubled_ids(path, ids)
    if faults:
        raise EditLoopError("\n".join([f"{path}: faults in the edits; nothing was written.", *faults[:MOST_FAULTS]]))
    return Survey(digest.hexdigest(), len(ids), candidates)


def stream_edits(path: Path, *, targets: bool = False) -> Iterator[EditRow]:
    """Yield the rows of an edits file that `survey_edits` has checked. Images may still be missing or broken.

    Args:
        path: An edits file, or a folder: then every `*.jsonl` below it is read.
        targets: Take a row's target as its only candidate, of the editor TARGET. This suits noisy triples of source,
            instruction and edit, whose targets are not certainly right.

    Yields:
        The rows, in the order of the file.

    Raises:
        EditLoopError: A line is no longer in the format: the file changed after it was checked.
    """
    for location, folder, text in _lines(path):
        line, faults = parse_line(location, text)
        if line is None:
            raise EditLoopError("\n".join([f"{path}: changed while it was read.", *faults]))
        row = line.row(folder)
        if targets:
            row = replace(row, target=None, candidates=(GivenCandidate(row.target, TARGET),) if row.target else ())
        yield row


def _lines(path: Path) -> Iterator[tuple[str, Path, bytes]]:
    """Yield location, folder and bytes of each line that is not blank."""
    for file in edits_files(path):
        for location, text in file_lines(file):
            yield location, file.parent, text.strip()


def _id_hash(name: str) -> int:
    """Return 64 bits of an id's digest.

    They find ids that may repeat; `_doubled_ids` then compares the ids themselves.
    """
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _doubled_ids(path: Path, ids: "array[int]") -> list[str]:
    """Return a fault for each id that repeats an earlier one."""
    values, counts = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    doubled = set(values[counts > 1].tolist())
    first: dict[str, str] = {}
    faults = []
    for location, _, text in _lines(path):
        line, _ = parse_line(location, text)
        if line is None or _id_hash(line.id) not in doubled:
            continue
        if line.id in first:
            faults.append(repeated_id(location, line.id, first[line.id]))
        first.setdefault(line.id, location)
    return faults

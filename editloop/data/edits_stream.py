"""An edits file of any length, read line by line: what `edits_file` reads at once, for jobs that see each row once.

Lines are checked before anything is done with them. Pictures are not opened: one that is missing or broken is the
reader's to count, since among a million there always is one.
"""

import codecs
import hashlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from editloop.data.edits_file import (
    EditLine,
    EditRow,
    GivenCandidate,
    edits_files,
    parse_line,
    path_fault,
    printable_json,
)
from editloop.errors import EditLoopError

TARGET = "target"
"""Editor of a candidate that was a row's target."""
MOST_FAULTS = 50
"""How many faults are told; more would only say the same."""


@dataclass(frozen=True)
class Survey:
    """What is known of an edits file after it was checked once."""

    sha256: str
    """Of all its lines, in order."""
    tasks: int
    candidates: int


def survey_edits(path: Path, most_candidates: int | None = None, *, targets: bool = False) -> Survey:
    """Check every line of an edits file, or of every `*.jsonl` below a folder, and count; a few bytes of memory a line.

    `most_candidates`: count only so many of a row. `targets`: take rows as `stream_edits` does. Raises one
    EditLoopError that names the faults: lines that are not as the format says, ids that come twice, paths that leave
    the folder.
    """
    digest, ids, faults = hashlib.sha256(), array("q"), []
    candidates = 0
    for location, folder, text in track(_lines(path), description="edits checked", transient=True):
        digest.update(text + b"\n")
        line, line_faults = parse_line(location, text)
        if line is not None:
            ids.append(_id_hash(line.id))
            count = int(line.target is not None) if targets else len(line.candidates[:most_candidates])
            candidates += count
            line_faults += [
                f"{location}: {key} = {printable_json(name)}: {fault}"
                for key, name, fault in _path_faults(folder, line)
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
    """The rows of a surveyed edits file, one at a time; whether their pictures are there and good is not known.

    `targets`: a row's target is taken for its only candidate, as in a set of noisy triples of source, instruction and
    edit whose targets are no certain truth.
    """
    for location, folder, text in _lines(path):
        line, faults = parse_line(location, text)
        if line is None:
            raise EditLoopError("\n".join([f"{path}: changed while it was read.", *faults]))
        target = folder / line.target if line.target is not None else None
        candidates = tuple(GivenCandidate(folder / candidate.image, candidate.editor) for candidate in line.candidates)
        if targets:
            target, candidates = None, (GivenCandidate(target, TARGET),) if target else ()
        yield EditRow(line.id, line.task, line.instruction, folder / line.source, target, candidates)


def _lines(path: Path) -> Iterator[tuple[str, Path, bytes]]:
    """Place, folder and bytes of each line that is not blank."""
    for file in edits_files(path):
        with file.open("rb") as stream:
            for number, text in enumerate(stream, start=1):
                content = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
                if content.strip():
                    yield f"{file}:{number}", file.parent, content.strip()


def _id_hash(name: str) -> int:
    """64 bits of an id's digest: enough to notice that it came before, and then to look closer."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big", signed=True)


def _doubled_ids(path: Path, ids: "array[int]") -> list[str]:
    values, counts = np.unique(np.frombuffer(ids, np.int64), return_counts=True)
    doubled = set(values[counts > 1].tolist())
    first: dict[str, str] = {}
    faults = []
    for location, _, text in _lines(path):
        line, _ = parse_line(location, text)
        if line is None or _id_hash(line.id) not in doubled:
            continue
        if line.id in first:
            faults.append(
                f"{location}: id = {printable_json(line.id)}: already used at {first[line.id]}; ids are unique"
            )
        first.setdefault(line.id, location)
    return faults


def _path_faults(folder: Path, line: EditLine) -> Iterator[tuple[str, str, str]]:
    names = [("source", line.source)]
    names += [("target", line.target)] if line.target is not None else []
    names += [(f"candidates[{index}].image", candidate.image) for index, candidate in enumerate(line.candidates)]
    for key, name in names:
        if fault := path_fault(folder, name):
            yield key, name, fault

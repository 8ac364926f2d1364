"""Reader of the loop's input file, `edits.jsonl`: one JSON object per line, an edit to be made or already made.

    {"id": "kitchen-1", "instruction": "Make the kettle red.", "source": "images/kitchen.jpg",
     "task": "recolour", "references": ["images/red.jpg"], "target": "images/kitchen-red.jpg",
     "candidates": [{"image": "made/a.png", "editor": "flux-kontext"}]}

`id`, `instruction` and `source` are required. `references` are up to three further images of which the instruction
speaks: `source` is image 1, and they are image 2 and those after it. Paths are relative to the file and must stay
inside its folder. Instead of a file a folder may be given: every `*.jsonl` below it is read. The input is not trusted:
sizes are checked before an image is decoded, only plain image formats are opened, and the faults of all lines are
reported together.
"""

import codecs
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from editloop.content import folder_of_links
from editloop.data.picture_file import file_picture_sha256, first_line
from editloop.data.vocabulary import MOST_REFERENCES, task_id
from editloop.errors import EditLoopError
from editloop.text_file import path_kind

LONGEST_INSTRUCTION = 2000
"""Longest instruction, in characters."""
LONGEST_LINE = 4 * 2**20
"""Bytes of a line, for tens of thousands of candidates."""


class GivenCandidate(NamedTuple):
    """An edit that was made elsewhere, with the name of its editor."""

    image: Path
    editor: str


@dataclass(frozen=True)
class EditRow:
    """One row of an edits file, with the paths of its images."""

    id: str
    task: str
    instruction: str
    source: Path
    target: Path | None = None
    candidates: tuple[GivenCandidate, ...] = ()
    references: tuple[Path, ...] = ()
    """Further images of which the instruction speaks: image 2 and those after it."""


MOST_LINE_FAULTS = 10
"""Most faults of one line in a message."""
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
"""How an address begins."""
FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
"""Unicode's composed and decomposed form."""
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Instruction = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_INSTRUCTION)]


class CandidateLine(BaseModel):
    """A candidate as a line of the file states it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    image: str
    editor: Name


class EditLine(BaseModel):
    """A line as the file states it. Its images have not been opened."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Name
    instruction: Instruction
    source: str
    references: list[str] = Field([], max_length=MOST_REFERENCES)
    task: Name = "edit"
    target: str | None = None
    candidates: list[CandidateLine] = []

    def pictures(self) -> list[tuple[str, str]]:
        """Return the key and the path of each of its images: source, references, target, candidates."""
        references = [(f"references[{k}]", reference) for k, reference in enumerate(self.references)]
        targets = [] if self.target is None else [("target", self.target)]
        candidates = [(f"candidates[{k}].image", candidate.image) for k, candidate in enumerate(self.candidates)]
        return [("source", self.source), *references, *targets, *candidates]

    def row(self, folder: Path) -> EditRow:
        """Return the row that the line states.

        Args:
            folder: The folder of the edits file.
        """
        candidates = tuple(
            GivenCandidate(stated_path(folder, candidate.image), candidate.editor) for candidate in self.candidates
        )
        target = None if self.target is None else stated_path(folder, self.target)
        references = tuple(stated_path(folder, reference) for reference in self.references)
        source = stated_path(folder, self.source)
        return EditRow(self.id, self.task, self.instruction, source, target, candidates, references)


def read_edits(path: Path) -> list[EditRow]:
    """Return the rows of an edits file, after every image was opened and checked. Writes nothing.

    Args:
        path: An edits file, or a folder: then every `*.jsonl` below it is read, in the order of the paths.

    Raises:
        EditLoopError: There are no edits, or some are faulty: one line per fault, with file, line, key, value and rule.
    """
    reading = _Reading()
    for file in edits_files(path):
        reading.read_file(file)
    if not reading.rows and not reading.faults:
        raise EditLoopError(f"{path}: holds no edits; write one JSON object a line with id, instruction and source.")
    if reading.faults:
        count = len(reading.faults)
        raise EditLoopError(
            "\n".join([f"{path}: {count} fault{'s' * (count > 1)} in the edits; nothing was written.", *reading.faults])
        )
    return reading.rows


def edits_files(path: Path) -> list[Path]:
    """Return the edits files that a path stands for.

    Args:
        path: A file, which is returned alone, or a folder with `*.jsonl` files at any depth.

    Returns:
        The files, sorted by path.

    Raises:
        EditLoopError: The path is missing, the folder has no such file, or one of them is a pipe, a device, or a link
            out of the folder.
    """
    try:
        kind = path_kind(path)
    except (OSError, ValueError):
        kind = "no such file or folder"
    if kind is None:
        return [path]
    if not path.is_dir():
        raise EditLoopError(f"{path}: {kind}; give an edits.jsonl or a folder that holds one.")
    files = sorted(path.rglob("*.jsonl"))
    if not files:
        raise EditLoopError(f"{path}: holds no *.jsonl file; give an edits.jsonl or a folder that holds one.")
    for file in files:
        if fault := path_fault(path, str(file.relative_to(path))):
            raise EditLoopError(f"{file}: {fault}")
        if kind := path_kind(file):
            raise EditLoopError(f"{file}: {kind}, not an edits file; take it out of the folder.")
    return files


def file_lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the lines of an edits file that are not blank.

    Args:
        file: The file.

    Yields:
        File and line number, and the line's bytes without its end.

    Raises:
        EditLoopError: A line is longer than LONGEST_LINE.
    """
    with file.open("rb") as stream:
        for number, text in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), start=1):
            if len(text) > LONGEST_LINE:
                raise EditLoopError(
                    f"{file}:{number}: more than {LONGEST_LINE >> 20} MiB on a line, which is one edit."
                )
            content = text.removeprefix(codecs.BOM_UTF8) if number == 1 else text
            if content.strip():
                yield f"{file}:{number}", content.removesuffix(b"\n")


@dataclass
class _Reading:
    """The state of a read: good rows, faults, and the ids and tasks seen so far."""

    rows: list[EditRow] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    ids: dict[str, str] = field(default_factory=dict)
    """Location of the first line with each id."""
    tasks: dict[str, str] = field(default_factory=dict)
    """Location of the first line with each task, by its id."""
    picture_fault: Callable[[Path, str], str | None] = field(default_factory=lambda: cache(_picture_fault))
    """`_picture_fault`, which opens an image once."""

    def read_file(self, file: Path) -> None:
        try:
            for location, text in file_lines(file):
                self.read_line(location, file.parent, text)
        except OSError as error:
            self.faults.append(f"{file}: not a readable file ({error.strerror})")
        except EditLoopError as error:
            self.faults.append(str(error))

    def read_line(self, location: str, folder: Path, text: bytes) -> None:
        before = len(self.faults)
        line, faults = parse_line(location, text)
        self.faults += faults
        if line is None:
            return
        row = line.row(folder)
        for key, name in line.pictures():
            if fault := self.picture_fault(folder, name):
                self.faults.append(f"{location}: {key} = {printable_json(name)}: {fault}")
        if line.id in self.ids:
            self.faults.append(repeated_id(location, line.id, self.ids[line.id]))
        self.ids.setdefault(line.id, location)
        if not any(self.picture_fault(folder, name) for name in (line.source, *line.references)):
            source, *references = (file_picture_sha256(path) for path in (row.source, *row.references))
            self.faults += [f"{location}: {fault}" for fault in _repeated_references(line, source, references)]
            task = task_id(source, line.instruction, references)
            if task in self.tasks:
                same = "source, references and instruction" if references else "source and instruction"
                self.faults.append(
                    f"{location}: instruction = {printable_json(line.instruction)}: same {same} as "
                    f"{self.tasks[task]}; give the candidates of one edit in one row"
                )
            self.tasks.setdefault(task, location)
        if len(self.faults) == before:
            self.rows.append(row)


def repeated_id(location: str, name: str, first: str) -> str:
    """Return the fault of a line whose id repeats an earlier one.

    Args:
        location: File and number of the line.
        name: The id.
        first: File and number of the first line with the id.
    """
    return f"{location}: id = {printable_json(name)}: already used at {first}; ids are unique"


def parse_line(location: str, text: bytes) -> tuple[EditLine | None, list[str]]:
    """Parse one line of an edits file. Its images are not looked for.

    Args:
        location: File and line number, with which every fault begins.
        text: The line's bytes.

    Returns:
        The line and no faults, or None and the faults.
    """
    try:
        return EditLine.model_validate(json.loads(text.decode(), object_pairs_hook=_without_doubles)), []
    except ValidationError as error:
        rules = [_rule(details) for details in error.errors(include_url=False)[:MOST_LINE_FAULTS]]
        if (more := error.error_count() - len(rules)) > 0:
            rules.append(f"and {more:,} more faults on this line")
        return None, [f"{location}: {rule}" for rule in rules]
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        return None, [
            f"{location}: {printable_json(text.decode(errors='replace'))}: not one JSON object in UTF-8 "
            f"({first_line(error)})"
        ]


def path_fault(folder: Path, name: str) -> str | None:
    """Check that a path stays inside a folder. Whether the file exists is not checked.

    Args:
        folder: The folder of the edits file.
        name: The path as the file states it.

    Returns:
        What is wrong with the path, or None.
    """
    try:
        if not (folder / name).resolve().is_relative_to(folder_of_links(folder)):
            return f"leaves the folder {folder}; copy the picture into it"
    except (OSError, ValueError, RuntimeError) as error:
        return f"not a path ({first_line(error)})"
    return None


def stated_path(folder: Path, name: str) -> Path:
    """Return the path of a file that an edits file names.

    Letters with marks are stored as one code point or as several, depending on the system: where there is no file of
    the stated name, one of the other form is taken.

    Args:
        folder: The folder of the edits file.
        name: The path as the file states it.
    """
    forms = (name, *(unicodedata.normalize(form, name) for form in FORMS))
    return folder / next((form for form in forms if os.path.lexists(folder / form)), name)


def picture_path_fault(folder: Path, name: str) -> str | None:
    """Check that a path names a file inside a folder. The file is not opened.

    Args:
        folder: The folder of the file with the path.
        name: The path as the file states it.

    Returns:
        What is wrong with the path, or None.
    """
    if ADDRESS.match(name):
        return "an address; download the picture and give its path below the folder"
    path = stated_path(folder, name)
    if "\\" in name and not path.exists():
        return "a Windows path; write / between folders"
    if fault := path_fault(folder, name):
        return fault
    try:
        return None if path.is_file() else f"no such file below {folder}"
    except OSError as error:
        return f"not a path ({first_line(error)})"


def _picture_fault(folder: Path, name: str) -> str | None:
    """Return what is wrong with the image that a file states as `name`, or None."""
    if fault := picture_path_fault(folder, name):
        return fault
    path = stated_path(folder, name)
    try:
        file_picture_sha256(path)
    except EditLoopError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


def _repeated_references(line: EditLine, source: str, references: Sequence[str]) -> list[str]:
    """Return the faults of references that show the source, or a reference before them, once more.

    Args:
        line: The line.
        source: Identity of its source image.
        references: Identities of its reference images, in order.
    """
    first, faults = {source: "source"}, []
    for number, sha256 in enumerate(references):
        if sha256 in first:
            faults.append(
                f"references[{number}] = {printable_json(line.references[number])}: same picture as {first[sha256]}; "
                "the images of an edit differ"
            )
        first.setdefault(sha256, f"references[{number}]")
    return faults


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique: dict[str, Any] = {}
    for key, value in pairs:
        if key in unique:
            raise ValueError(f"key {printable_json(key)} stands twice")
        unique[key] = value
    return unique


def _rule(details: Any) -> str:
    """Format one of pydantic's errors as `key = value: rule`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    key = _printable("".join(parts).removeprefix("."))
    if details["type"] == "missing":
        return f"{key}: missing; it is required"
    if details["type"] == "extra_forbidden":
        model = CandidateLine if "." in key else EditLine
        return f"{key} = {printable_json(details['input'])}: unknown key; known are {', '.join(model.model_fields)}"
    if details["type"] == "too_long":
        count = len(details["input"])
        return f"{key}: {count} images; a task has up to {MOST_REFERENCES} beside its source"
    message = str(details["msg"])
    if details["type"] == "string_too_short":
        message = "must not be empty"
    return f"{key or 'line'} = {printable_json(details['input'])}: {message[:1].lower()}{message[1:]}"


def printable_json(value: Any) -> str:
    """Return a value as JSON of at most 80 characters on one line, with unprintable characters escaped.

    Args:
        value: Any value. Those that JSON does not know appear as their `str`.
    """
    text = _printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else f"{text[:77]}..."


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)

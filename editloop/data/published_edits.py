"""Import of the prompts of published online RL as an edits folder: `edits.jsonl`, its images, and their origin.

EditScore-RL-Data is `rl.jsonl` and pictures, a task a line; `meta_data` is JSON as text:

    {"task_type": "background", "instruction": ..., "input_images": ["images/0.png"], "meta_data": "{...}",
     "target_img_size": [512, 512]}

The first of several `input_images` is the source, and the others are references.

Edit-R1's prompts are `train_metadata.jsonl` and `test_metadata.jsonl`:

    {"prompt": ..., "image": "images/a.png", "requirement": ...}

Paths are relative to the file and must stay inside its folder.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.content import complete_folder, write_file
from editloop.data.data_origin import published_path_fault, write_origin
from editloop.data.edits_file import LONGEST_INSTRUCTION, printable_json, stated_path
from editloop.data.json_rows import count_lines, read_json_rows, row_faults, rows_file
from editloop.data.row_import import SKIPPED, PictureStore, Reader, RowImport
from editloop.data.vocabulary import MOST_REFERENCES, task_id
from editloop.errors import EditLoopError, there_are

PublishedFormat = Literal["editscore-rl", "edit-r1"]
LONGEST_TASK = 200
"""Characters of a kind of edit, as an edits file allows them."""


class PublishedEdit(NamedTuple):
    """An edit that is asked for."""

    instruction: str
    task: str
    """The kind of edit."""
    images: tuple[str, ...]
    """Paths of the source image and of the reference images, as the row states them."""


Parser = Callable[[dict[str, Any]], PublishedEdit | str]
"""Returns the edit of a row, or what is wrong with the row."""


class ImportedEdits(NamedTuple):
    """What an import made."""

    rows: int
    """Rows of the edits file."""
    sources: int
    """Source and reference images."""
    left_out: dict[str, int]
    """Rows of kinds that were not asked for, by kind."""
    skipped: tuple[str, ...]
    """A message for each row that was left out for a fault."""


class _EditScoreRow(BaseModel):
    model_config = ConfigDict(extra="ignore")

    task_type: str | None = None
    instruction: str | None = None
    input_images: list[str]
    meta_data: str | None = None


class _EditR1Row(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt: str
    image: str


def import_published_edits(
    path: Path, form: PublishedFormat, output: Path, *, leave_out: Collection[str] = (), strict: bool = False
) -> ImportedEdits:
    """Import published prompts as an edits folder. A call that was stopped goes on at the row that it had reached.

    Args:
        path: The file with the rows, or a folder with one such file.
        form: The published format.
        output: Edits folder to write. Rows that were left out for a fault are listed in its `skipped.txt`.
        leave_out: Kinds of edits that are not imported.
        strict: Refuse rows with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, no row is left, a kind of `leave_out` does not occur, or `strict` and some
            rows have faults. Nothing is written.
    """
    file, parse = rows_file(path), FORMATS[form]
    left_out = _count_kinds(file, parse, leave_out)
    rows = RowImport(path, [file], output, [form, sorted(leave_out)])
    first: dict[str, str] = {}
    pictures: dict[str, str] = {}
    sources: set[str] = set()
    rows.work.mkdir(parents=True, exist_ok=True)
    with (rows.work / "edits.jsonl").open("w", encoding="utf-8") as lines:
        reader, total = _reader(parse, leave_out), count_lines(file)
        for location, value in rows.store_rows(reader, _store_edit, "edits imported", total):
            instruction, task, stored = value
            source, *references = (sha256 for _, sha256, _ in stored)
            key = task_id(source, instruction, references)
            if key in first:
                rows.skip(location, f"same sources and instruction as {first[key]}")
                continue
            first[key] = location
            pictures |= {name: file_sha256 for name, _, file_sha256 in stored}
            sources |= {source, *references}
            edit = {"id": f"{file.stem[:100]}-{location.rpartition(' ')[2]}", "task": task, "instruction": instruction}
            edit["source"] = f"images/{source}.png"
            if references:
                edit["references"] = [f"images/{reference}.png" for reference in references]
            lines.write(json.dumps(edit, ensure_ascii=False) + "\n")
    rows.check(len(first), strict=strict)
    facts: dict[str, Any] = {"edits": len(first), "sources": len(sources), "left_out": left_out}
    with complete_folder(output, facts) as folder:
        rows.link_images(folder / "images", sources)
        shutil.copyfile(rows.work / "edits.jsonl", folder / "edits.jsonl")
        write_file(folder / SKIPPED, rows.skipped_text())
        facts |= write_origin(folder, path.resolve().name, form, rows.digests, pictures)
    rows.remove()
    return ImportedEdits(len(first), len(sources), left_out, tuple(rows.skipped))


def _count_kinds(file: Path, parse: Parser, leave_out: Collection[str]) -> dict[str, int]:
    """Return the number of rows of each kind to leave out. One that does not occur is refused."""
    if not leave_out:
        return {}
    edits = (parse(row) for _, row in read_json_rows(file) if not isinstance(row, str))
    kinds = Counter(edit.task for edit in edits if not isinstance(edit, str))
    if unknown := sorted(set(leave_out) - kinds.keys()):
        raise EditLoopError(f"{file}: no edit of kind {unknown[0]!r} to leave out; {there_are(unknown[0], kinds)}")
    return {kind: kinds[kind] for kind in leave_out}


def _reader(parse: Parser, leave_out: Collection[str]) -> Reader[tuple[Path, PublishedEdit]]:
    """Return a reader of a format's rows, without those of the kinds to leave out."""

    def rows(file: Path) -> Iterator[tuple[str, tuple[Path, PublishedEdit] | str]]:
        for place, row in read_json_rows(file):
            edit = row if isinstance(row, str) else parse(row)
            if isinstance(edit, str):
                yield place, edit
            elif edit.task not in leave_out:
                yield place, (file.parent, edit)

    return lambda file, skip: islice(rows(file), skip, None)


def _store_edit(row: tuple[Path, PublishedEdit], pictures: PictureStore) -> list[Any] | str:
    """Store a row's source and references; the values of the row, or what is wrong with it."""
    folder, edit = row
    if not edit.instruction.strip():
        return "instruction: empty"
    if len(edit.instruction.strip()) > LONGEST_INSTRUCTION:
        return f"instruction: {len(edit.instruction):,} characters; at most {LONGEST_INSTRUCTION:,}"
    if len(edit.task) > LONGEST_TASK:
        return f"kind of edit: {len(edit.task):,} characters; at most {LONGEST_TASK}"
    stored: dict[str, list[str]] = {}
    for number, name in enumerate(edit.images):
        stated = f"{f'references[{number - 1}]' if number else 'source'} = {printable_json(name)}"
        if fault := published_path_fault(folder, name):
            return f"{stated}: {fault}"
        picture = pictures.put(stated_path(folder, name), stated)
        if picture.sha256 in stored:
            return f"{stated}: the same picture as {stored[picture.sha256][0]!r}"
        stored[picture.sha256] = [name, picture.sha256, picture.file_sha256]
    return [edit.instruction.strip(), edit.task, list(stored.values())]


def _editscore_edit(value: dict[str, Any]) -> PublishedEdit | str:
    """Return the edit of a row of EditScore-RL-Data. Its instruction may stand in `meta_data` alone."""
    try:
        row = _EditScoreRow.model_validate(value)
        instruction = row.instruction or json.loads(row.meta_data or "{}")["instruction"]
    except ValidationError as error:
        return row_faults(error)
    except (ValueError, RecursionError, KeyError, TypeError):
        return "instruction: neither there nor in meta_data"
    if not 1 <= len(row.input_images) <= 1 + MOST_REFERENCES:
        return f"input_images: {len(row.input_images)} pictures; an edit is made of 1 to {1 + MOST_REFERENCES}"
    return PublishedEdit(str(instruction), (row.task_type or "").strip() or "edit", tuple(row.input_images))


def _edit_r1_edit(value: dict[str, Any]) -> PublishedEdit | str:
    try:
        row = _EditR1Row.model_validate(value)
    except ValidationError as error:
        return row_faults(error)
    return PublishedEdit(row.prompt, "edit", (row.image,))


FORMATS: dict[PublishedFormat, Parser] = {
    "editscore-rl": _editscore_edit,
    "edit-r1": _edit_r1_edit,
}

"""Readers of the benchmarks of editors, each in the layout in which it is published.

gedit-bench    rows of the hub's dataset: parquet, or `save_to_disk`'s arrow files (arXiv 2504.17761)
imgedit-bench  basic_edit.json, and the sources below the same folder (arXiv 2505.20275)
edit-compass   PartN/TASK/TASK.json, and the sources below the same folder (arXiv 2605.13062). Tasks with several
               source images, its part 5, are left out: editors here take one.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from editloop.content import sha256_json
from editloop.data.picture_file import first_line
from editloop.errors import EditLoopError, there_are
from editloop.evaluation.editor_suites.names import EDITOR_SUITE_NAMES
from editloop.evaluation.editor_suites.tasks import EditorSuite, EditorTask, key_fault
from editloop.evaluation.suites.faults import duplicates, raise_faults
from editloop.evaluation.suites.hub_rows import read_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.text_file import file_bytes

GEDIT_TASKS = (
    "background_change",
    "color_alter",
    "material_alter",
    "motion_change",
    "ps_human",
    "style_change",
    "subject-add",
    "subject-remove",
    "subject-replace",
    "text_change",
    "tone_transfer",
)
"""GEdit-Bench's types of task."""
LANGUAGES = ("en", "cn")
IMGEDIT_TASKS = ("add", "adjust", "extract", "replace", "remove", "background", "style", "compose", "action")
"""ImgEdit-Bench's types of task, in the order of its published table."""
IMGEDIT_FILE = "basic_edit.json"
GEDIT_COLUMNS = ("task_type", "key", "instruction", "instruction_language", "Intersection_exist")
GEDIT_SOURCE = "input_image"
"""What the editor gets and the judge sees. `input_image_raw`, the picture before it was prepared, is not read."""
SEVERAL_SOURCES = "Part5"

Reader = Callable[[Path, PictureLoader, list[str]], list[EditorTask]]
"""(data, loader, faults) -> tasks. A reader adds the faults that it finds to `faults`, and leaves such tasks out."""


class EditorSuiteFormat(NamedTuple):
    """How a benchmark of editors is read, and shown to a judge."""

    read: Reader
    edits_at_source_size: bool = False


def open_editor_suite(name: str, data: Path) -> EditorSuite:
    """Open a benchmark of editors and check its content.

    Args:
        name: gedit-bench, imgedit-bench or edit-compass.
        data: Its folder, or a file of it, in its published layout.

    Raises:
        EditLoopError: There is no such benchmark, it has no tasks, or its content has faults. The message lists them.
    """
    suite_format = EDITOR_SUITES.get(name)
    if suite_format is None:
        raise EditLoopError(f"suite {name}: no benchmark of editors; {there_are(name, EDITOR_SUITES)}")
    faults = list[str]()
    loader = PictureLoader(data if data.is_dir() else data.parent)
    try:
        tasks = suite_format.read(data, loader, faults)
    finally:
        faults += loader.close()
    faults += [fault for task in tasks if (fault := key_fault(task.key))]
    faults += [f"key {key} comes twice" for key in duplicates(task.key for task in tasks)]
    raise_faults(faults, f"--data {data}")
    if not tasks:
        raise EditLoopError(f"--data {data}: no task of {name} in it; give the benchmark's own folder.")
    content = [[task.key, task.task, task.instruction, task.source.sha256, task.in_intersection] for task in tasks]
    return EditorSuite(name, sha256_json([name, content]), tuple(tasks), suite_format.edits_at_source_size)


def read_gedit_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[EditorTask]:
    """Return the tasks of GEdit-Bench; a key is TASK/LANGUAGE/KEY.

    Args:
        data: The dataset's folder or file.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There are no files or several splits, or a file cannot be read or lacks a column.
    """
    tasks = []
    for row in read_rows(data, GEDIT_COLUMNS, (GEDIT_SOURCE,), loader):
        task, key, instruction, language, in_intersection = (row.values[name] for name in GEDIT_COLUMNS)
        source = row.pictures[GEDIT_SOURCE][0]
        wrong = [
            f"{row.name}: {fault}"
            for fault, is_faulty in (
                (f"task_type {task!r}; there are {', '.join(GEDIT_TASKS)}", task not in GEDIT_TASKS),
                (f"instruction_language {language!r}; there are {', '.join(LANGUAGES)}", language not in LANGUAGES),
                ("no instruction", not isinstance(instruction, str)),
                ("Intersection_exist is neither true nor false", not isinstance(in_intersection, bool)),
            )
            if is_faulty
        ]
        faults += wrong
        if source and not wrong:
            tasks.append(EditorTask(f"{task}/{language}/{key}", task, instruction, source, language, in_intersection))
    return tasks


class _ImgEditTask(BaseModel):
    """An entry of basic_edit.json."""

    model_config = ConfigDict(extra="ignore")

    id: str
    prompt: str
    edit_type: str


class _CompassTask(BaseModel):
    """An entry of a task's file of Edit-Compass."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    save_id: str
    source_image: str
    prompt_en: str | None = None
    prompt_cn: str | None = None


def read_imgedit_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[EditorTask]:
    """Return the tasks of ImgEdit-Bench's basic part; a key is the entry's.

    Args:
        data: The folder with basic_edit.json, or such a file.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: There is no such file, or it is not what is published under this name.
    """
    path = data / IMGEDIT_FILE if data.is_dir() else data
    entries = _read_json(path)
    if not isinstance(entries, dict):
        raise EditLoopError(f"{path}: tasks by key are wanted, as in {IMGEDIT_FILE} of ImgEdit-Bench.")
    tasks = []
    for key, value in entries.items():
        try:
            entry = _ImgEditTask.model_validate(value)
        except ValidationError as error:
            faults.append(f"{path.name} {key}: {_field_fault(error)}")
            continue
        if entry.edit_type not in IMGEDIT_TASKS:
            faults.append(f"{path.name} {key}: edit_type {entry.edit_type!r}; there are {', '.join(IMGEDIT_TASKS)}")
        elif source := loader.file(entry.id, f"{path.name} {key}"):
            tasks.append(EditorTask(key, entry.edit_type, entry.prompt, source))
    return tasks


def read_edit_compass(data: Path, loader: PictureLoader, faults: list[str]) -> list[EditorTask]:
    """Return the tasks of Edit-Compass with one source; a key is LANGUAGE/PART/TASK/ID.

    Args:
        data: The folder with Part1, Part2 and so on.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: A file is not what is published under its name.
    """
    tasks = []
    for path in sorted(data.glob("Part*/*/*.json")):
        part, task = path.parts[-3:-1]
        if path.stem != task or part == SEVERAL_SOURCES:
            continue
        entries = _read_json(path)
        if not isinstance(entries, list):
            raise EditLoopError(f"{path}: a list of tasks is wanted, as Edit-Compass has it.")
        for number, value in enumerate(entries):
            try:
                entry = _CompassTask.model_validate(value)
            except ValidationError as error:
                faults.append(f"{part}/{path.name} entry {number}: {_field_fault(error)}")
                continue
            source = loader.file(entry.source_image, f"{part}/{path.name} {entry.save_id}")
            for language, prompt in zip(LANGUAGES, (entry.prompt_en, entry.prompt_cn), strict=True):
                if source and prompt:
                    key = f"{language}/{part}/{task}/{entry.save_id}"
                    tasks.append(EditorTask(key, f"{part}/{task}", prompt, source, language))
    return tasks


EDITOR_SUITES = {
    "gedit-bench": EditorSuiteFormat(read_gedit_bench, edits_at_source_size=True),
    "imgedit-bench": EditorSuiteFormat(read_imgedit_bench),
    "edit-compass": EditorSuiteFormat(read_edit_compass),
}
"""The benchmarks of editors by name."""
assert tuple(EDITOR_SUITES) == EDITOR_SUITE_NAMES


def _read_json(path: Path) -> Any:
    try:
        return json.loads(file_bytes(path))
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}). Give the benchmark's own folder.") from None
    except (ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: not JSON ({first_line(error)}). Take the one that was published.") from None


def _field_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'entry'}: {first['msg']}"

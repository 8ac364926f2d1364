"""Distillation data for EditScore: edits that a strong model, the teacher, has scored.

Import reads the teacher's rows, filters them, and writes the folder that EditScore is trained on. The input has one
JSON object per line, one for each edit:

    {"key": "kitchen-1", "instruction": "Make the kettle red.", "source": "images/kitchen.png",
     "edit": "made/a.png", "editor": "flux-kontext", "sc": [22, 25], "pq": [20, 18],
     "reasoning": {"sc": "The kettle is red, the rest is as it was.", "pq": "A seam at the handle."}}

Paths are relative to the file and must stay inside its folder. Where the instruction speaks of further images,
`references` lists up to three: `source` is image 1, and they are image 2 and those after it. `reasoning` may be a
single text, which is then that of `sc`. The one for `pq` must not mention the source, so it is written from the points.
Rows with the same `key` are one group.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from editloop.content import RESTORE, complete_folder, read_manifest, sha256_file
from editloop.data.data_origin import origin_of, published_path_fault, write_origin
from editloop.data.edits_file import stated_path
from editloop.data.picture_file import first_line, load_image
from editloop.data.row_import import PictureStore
from editloop.data.vocabulary import MOST_REFERENCES, is_empty
from editloop.datasets.repository import DatasetVersion, TaughtOrigin, commit_dataset
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.splits import split_of
from editloop.errors import EditLoopError, listed_faults
from editloop.models.edit_score.scores import SCALE, overall
from editloop.progress import track
from editloop.text_file import file_bytes

ROWS_FILE = "taught-{split}.jsonl"
ROW_FAULTS_LISTED = 20
"""Faults that an error message lists; the others are counted."""
LONGEST_TAUGHT = 10_000
"""Characters of an instruction."""
SEED = 0
"""Seed of the split. A source image falls into the same split in every import."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Point = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Points = tuple[Point, Point]


class DistillationReasons(BaseModel):
    """The teacher's reasoning for each question; empty where it gave none."""

    model_config = ConfigDict(extra="forbid")

    sc: str = ""
    pq: str = ""


class DistillationRow(BaseModel):
    """One edit with the teacher's scores of it, as an imported folder keeps it: of both questions or of one."""

    model_config = ConfigDict(extra="forbid")

    key: Name
    instruction: str = ""
    """Empty where the teacher was asked PQ alone, which does not show it."""
    source: str | None = None
    """sha256 of the image; None where the teacher was asked PQ alone."""
    references: tuple[str, ...] = Field(default=(), max_length=MOST_REFERENCES, exclude_if=is_empty)
    """As `source`, for the reference images."""
    edit: str
    """As `source`, for the edited image."""
    editor: str = ""
    """Empty where it is not known."""
    sc: Points | None = None
    """The teacher's points for SC; None where it was not asked."""
    pq: Points | None = None
    reasoning: DistillationReasons | str = DistillationReasons()

    @property
    def reasons(self) -> tuple[str, str]:
        """The reasoning for SC and for PQ; empty where the teacher gave none."""
        return (self.reasoning, "") if isinstance(self.reasoning, str) else (self.reasoning.sc, self.reasoning.pq)


class TeacherRow(DistillationRow):
    """A row of a teacher's file, which answers both questions."""

    instruction: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TAUGHT)]
    source: str
    """Path of the image."""
    editor: Name
    sc: Points
    pq: Points

    @property
    def points(self) -> tuple[float, float, float, float]:
        """The four points of the edit: two of `sc`, then two of `pq`."""
        return (*self.sc, *self.pq)


def import_distillation_rows(
    file: Path, output: Path, *, top: int = 25, least_best: float = 0.0, least_spread: float = 0.0
) -> dict[str, int]:
    """Check a teacher's rows, filter their groups, and write the folder that EditScore is trained on.

    Args:
        file: JSON lines file with the teacher's rows.
        output: Folder to write.
        top: Highest point of the teacher's scale; the lowest is 0.
        least_best: Drop a group whose best edit has an overall score O (0..10) below this: no editor did what was
            asked.
        least_spread: Drop a group whose edits' O has a standard deviation below this: it does not tell edits apart.

    Returns:
        Counts of rows and groups: read, dropped by reason, and kept.

    Raises:
        EditLoopError: Rows are faulty, each named by its line, or no group is left. Nothing is written then.
    """
    groups = _checked_rows(file, top)
    counts = {"rows": sum(map(len, groups.values())), "groups": len(groups)}
    selected_groups: dict[str, list[TeacherRow]] = {}
    dropped = {"no editor achieves": 0, "tells nothing apart": 0}
    for key, rows in groups.items():
        overall_scores = overall(np.array([row.points for row in rows]), top)
        if overall_scores.max() < least_best:
            dropped["no editor achieves"] += 1
        elif overall_scores.std() < least_spread:
            dropped["tells nothing apart"] += 1
        else:
            selected_groups[key] = rows
    counts |= {f"dropped: {reason}": count for reason, count in dropped.items()}
    counts |= {"kept groups": len(selected_groups), "kept rows": sum(map(len, selected_groups.values()))}
    if not selected_groups:
        raise EditLoopError(
            f"{file}: {counts['groups']} groups, none left: {dropped}. Lower --least-best ({least_best:g} of "
            f"{SCALE:g}) or --least-spread ({least_spread:g})."
        )
    facts: dict[str, Any] = {"taught": counts["kept rows"], "top": top, "counts": counts}
    facts |= {"least_best": least_best, "least_spread": least_spread}
    with complete_folder(output, facts) as out:
        pictures = PictureStore(out / "images")
        files: dict[str, str] = {}
        with split_writer(out) as write:
            for rows in track(list(selected_groups.values()), description="taught edits"):
                for row in rows:
                    names = (row.source, row.edit, *row.references)
                    stored = {name: pictures.put(stated_path(file.parent, name), name) for name in names}
                    files |= {name: picture.file_sha256 for name, picture in stored.items()}
                    source, edit, *references = (stored[name].sha256 for name in names)
                    write(row.model_copy(update={"source": source, "edit": edit, "references": tuple(references)}))
        facts |= write_origin(out, file.name, "rows", {file.name: sha256_file(file)}, files)
    return counts


def publish_distillation(folder: Path) -> DatasetVersion:
    """Add a folder of distilled edits, with its origin, to the dataset repository. Content that is there adds nothing.

    Args:
        folder: The folder that an import wrote.

    Returns:
        The version.

    Raises:
        EditLoopError: EDITLOOP_DATASET_REPO or EDITLOOP_DATASET_REMOTE is not set, the folder does not name the files
            that it came from, or git or DVC refuses.
    """
    settings, manifest = DatasetSettings(), read_manifest(folder)
    origin = origin_of(manifest)
    if origin is None or "taught" not in manifest["facts"]:
        raise EditLoopError(f"{folder}: no folder of taught edits that names the files it came from. Import it again.")
    images = sorted(Path(name).stem for name in manifest["files"] if name.startswith("images/"))
    return commit_dataset(
        folder,
        repo=settings.require("dataset_repo"),
        remote=settings.require("dataset_remote"),
        message=f"{manifest['facts']['taught']} rows of a teacher",
        origin=TaughtOrigin(images=tuple(images), files=origin.files),
    )


@contextmanager
def split_writer(folder: Path) -> Iterator[Callable[[DistillationRow], None]]:
    """Yield a function that writes a row into the file of its split, which follows from its source image.

    Args:
        folder: The folder of distilled edits that is being written.
    """
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / ROWS_FILE.format(split=name)).open("w", encoding="utf-8"))
            for name in ("train", "validation")
        }

        def write(row: DistillationRow) -> None:
            split = split_of(row.source or row.edit, SEED)
            files["validation" if split == "validation" else "train"].write(row.model_dump_json() + "\n")

        yield write


def _checked_rows(file: Path, top: int) -> dict[str, list[TeacherRow]]:
    """Return the rows by key. Raise one EditLoopError with all faults where there are any."""
    groups: dict[str, list[TeacherRow]] = defaultdict(list)
    faults: list[str] = []
    first_lines: dict[tuple[str, str], int] = {}
    pictures: dict[Path, str] = {}
    try:
        lines = file_bytes(file).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise EditLoopError(f"{file}: not a readable file of JSON lines ({error}).") from error
    for number, line in enumerate(track(lines, description="teacher's rows"), start=1):
        if not line.strip():
            continue
        row = _row(line, top)
        if isinstance(row, str):
            faults.append(f"{file}:{number}: {row}")
            continue
        names = {"source": row.source, **{f"references[{k}]": name for k, name in enumerate(row.references)}}
        row_faults = [
            f"{key} {fault}"
            for key, name in {**names, "edit": row.edit}.items()
            if (fault := _picture_fault(file.parent, name, pictures))
        ]
        first = groups[row.key][0] if groups[row.key] else row
        if (first.source, first.references, first.instruction) != (row.source, row.references, row.instruction):
            row_faults.append(
                f"key {row.key!r}: another source, reference or instruction than its first row's; a key is one task"
            )
        if (row.key, row.edit) in first_lines:
            row_faults.append(f"edit {row.edit!r}: judged already at line {first_lines[row.key, row.edit]}")
        faults += [f"{file}:{number}: {fault}" for fault in row_faults]
        first_lines.setdefault((row.key, row.edit), number)
        groups[row.key].append(row)
    if faults:
        raise listed_faults(f"{file}: {len(faults)} faults; nothing was written.", faults, ROW_FAULTS_LISTED)
    if not groups:
        raise EditLoopError(f"{file}: no rows; write one JSON object a line.")
    return dict(groups)


def _row(line: str, top: int) -> TeacherRow | str:
    """Return the row of a line, or what is wrong with it."""
    try:
        row = TeacherRow.model_validate(json.loads(line))
    except ValidationError as error:
        return "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors(include_url=False)
        )
    except (ValueError, RecursionError) as error:
        return f"not a JSON object ({str(error)[:80]})"
    high = [point for point in row.points if point > top]
    return f"points {high}: above the top, {top}; --top says what it is" if high else row


def _picture_fault(folder: Path, name: str, fault_by_path: dict[Path, str]) -> str:
    """Return what is wrong with an image; empty where it is readable."""
    path = stated_path(folder, name)
    if path not in fault_by_path:
        fault_by_path[path] = ""
        try:
            if fault := published_path_fault(folder, name):
                fault_by_path[path] = f"{name!r}: {fault}"
            else:
                load_image(path)
        except (EditLoopError, OSError, ValueError) as error:
            fault_by_path[path] = str(error)
    return fault_by_path[path]


def read_distillation_rows(folder: Path, split: str) -> list[list[DistillationRow]]:
    """Read the rows of one split of an imported folder.

    Args:
        folder: The folder that an import wrote.
        split: `train` or `validation`.

    Returns:
        The rows by group, in the folder's order.

    Raises:
        EditLoopError: The file cannot be read, or a line is no such row.
    """
    groups: dict[str, list[DistillationRow]] = defaultdict(list)
    path = folder / ROWS_FILE.format(split=split)
    try:
        for line in filter(None, file_bytes(path).decode().split("\n")):
            row = DistillationRow.model_validate_json(line)
            groups[row.key].append(row)
    except (OSError, UnicodeDecodeError, ValidationError) as error:
        raise EditLoopError(f"{path}: cannot be read ({first_line(error)}). {RESTORE}") from None
    return list(groups.values())


def read_distillation_picture(folder: Path, sha256: str) -> Any:
    """Read an image of an imported folder, uint8 (height, width, 3).

    Args:
        folder: The folder that an import wrote.
        sha256: The image's name in a row: `source`, one of `references`, or `edit`.
    """
    return np.asarray(load_image(folder / "images" / f"{sha256}.png"))

"""Distillation data for EditScore: edits that a strong model, the teacher, has scored.

Import reads the teacher's rows, filters them, and writes the folder that EditScore is trained on. The input has one
JSON object per line, one for each edit:

    {"key": "kitchen-1", "instruction": "Make the kettle red.", "source": "images/kitchen.png",
     "edit": "made/a.png", "editor": "flux-kontext", "sc": [22, 25], "pq": [20, 18],
     "reasoning": {"sc": "The kettle is red, the rest is as it was.", "pq": "A seam at the handle."}}

Paths are relative to the file and must stay inside its folder. `reasoning` may be a single text, which is then that of
`sc`. The one for `pq` must not mention the source, so it is written from the points. Rows with the same `key` are one
group.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from editloop.content import complete_folder, sha256_file
from editloop.data.picture_file import load_image, store_png
from editloop.datasets.splits import split_of
from editloop.errors import EditLoopError, listed_faults
from editloop.models.edit_score.scores import SCALE, overall
from editloop.progress import track
from editloop.text_file import file_bytes

ROWS_FILE = "taught-{split}.jsonl"
ROW_FAULTS_LISTED = 20
"""Faults that an error message lists; the others are counted."""
SEED = 0
"""Seed of the split. A source image falls into the same split in every import."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Point = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class DistillationReasons(BaseModel):
    """The teacher's reasoning for each question; empty where it gave none."""

    model_config = ConfigDict(extra="forbid")

    sc: str = ""
    pq: str = ""


class DistillationRow(BaseModel):
    """One edit with the teacher's scores of it."""

    model_config = ConfigDict(extra="forbid")

    key: Name
    instruction: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
    source: str
    """Path of the image. In an imported folder, the image's sha256."""
    edit: str
    """As `source`, for the edited image."""
    editor: Name
    sc: tuple[Point, Point]
    pq: tuple[Point, Point]
    reasoning: DistillationReasons | str = DistillationReasons()

    @property
    def points(self) -> tuple[float, float, float, float]:
        """The four points of the edit: two of `sc`, then two of `pq`."""
        return (*self.sc, *self.pq)

    @property
    def reasons(self) -> tuple[str, str]:
        """The reasoning for SC and for PQ; empty where the teacher gave none."""
        return (self.reasoning, "") if isinstance(self.reasoning, str) else (self.reasoning.sc, self.reasoning.pq)


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
    selected_groups: dict[str, list[DistillationRow]] = {}
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
    facts = {"taught": counts["kept rows"], "top": top, "counts": counts, "rows_sha256": sha256_file(file)}
    with complete_folder(output, facts | {"least_best": least_best, "least_spread": least_spread}) as out:
        (out / "images").mkdir()
        lines: dict[str, list[str]] = {"train": [], "validation": []}
        for rows in track(list(selected_groups.values()), description="taught edits"):
            stored = [_stored(row, file.parent, out / "images") for row in rows]
            split = split_of(stored[0].source, SEED)
            lines["validation" if split == "validation" else "train"] += [row.model_dump_json() for row in stored]
        for split_name, members in lines.items():
            (out / ROWS_FILE.format(split=split_name)).write_text("".join(line + "\n" for line in members))
    return counts


def _checked_rows(file: Path, top: int) -> dict[str, list[DistillationRow]]:
    """Return the rows by key. Raise one EditLoopError with all faults where there are any."""
    groups: dict[str, list[DistillationRow]] = defaultdict(list)
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
        row_faults = [_picture_fault(file.parent, name, pictures) for name in (row.source, row.edit)]
        row_faults = [f"{key} {fault}" for key, fault in zip(("source", "edit"), row_faults, strict=True) if fault]
        first = groups[row.key][0] if groups[row.key] else row
        if (first.source, first.instruction) != (row.source, row.instruction):
            row_faults.append(f"key {row.key!r}: another source or instruction than its first row's; a key is one task")
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


def _row(line: str, top: int) -> DistillationRow | str:
    """Return the row of a line, or what is wrong with it."""
    try:
        row = DistillationRow.model_validate(json.loads(line))
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
    path = folder / name
    if path not in fault_by_path:
        fault_by_path[path] = ""
        try:
            if not path.resolve().is_relative_to(folder.resolve()):
                fault_by_path[path] = f"{name!r}: leaves the folder {folder}; copy the picture into it"
            else:
                load_image(path)
        except (EditLoopError, OSError, ValueError) as error:
            fault_by_path[path] = str(error)
    return fault_by_path[path]


def _stored(row: DistillationRow, folder: Path, images: Path) -> DistillationRow:
    """Store a row's images in the folder by their identity, and return the row with these names."""
    names: dict[str, str] = {}
    for role in ("source", "edit"):
        names[role] = store_png(load_image(folder / getattr(row, role)), images)
    return row.model_copy(update=names)


def read_distillation_rows(folder: Path, split: str) -> list[list[DistillationRow]]:
    """Read the rows of one split of an imported folder.

    Args:
        folder: The folder that `import_distillation_rows` wrote.
        split: `train` or `validation`.

    Returns:
        The rows by group, in the folder's order.
    """
    groups: dict[str, list[DistillationRow]] = defaultdict(list)
    for line in filter(None, (folder / ROWS_FILE.format(split=split)).read_text().split("\n")):
        row = DistillationRow.model_validate_json(line)
        groups[row.key].append(row)
    return list(groups.values())


def read_distillation_picture(folder: Path, sha256: str) -> Any:
    """Read an image of an imported folder, uint8 (height, width, 3).

    Args:
        folder: The folder that `import_distillation_rows` wrote.
        sha256: The image's name in a row: `source` or `edit`.
    """
    return np.asarray(load_image(folder / "images" / f"{sha256}.png"))

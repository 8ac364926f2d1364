"""Edits that a strong model has judged: read from its rows, sifted, kept as a folder that EditScore is trained on.

A row is a JSON object a line, an edit each:

    {"key": "kitchen-1", "instruction": "Make the kettle red.", "source": "images/kitchen.png",
     "edit": "made/a.png", "editor": "flux-kontext", "sc": [22, 25], "pq": [20, 18],
     "reasoning": {"sc": "The kettle is red, the rest is as it was.", "pq": "A seam at the handle."}}

Paths are relative to the file and stay inside its folder. `reasoning` may be one text: it is then that of `sc`, and
`pq`'s, which must not speak of the source, is written from the points. Rows of one `key` are one group.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from rich.progress import track

from editloop.content import complete_folder, sha256_bytes, sha256_file
from editloop.data.picture_file import load_image
from editloop.datasets.splits import split_of
from editloop.errors import EditLoopError
from editloop.models.edit_score.scores import SCALE, overall

ROWS_FILE = "taught-{split}.jsonl"
ROW_FAULTS_LISTED = 20
SEED = 0
"""Of the split: a source's pictures fall into the same split in every import."""

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Point = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]


class DistillationReasons(BaseModel):
    model_config = ConfigDict(extra="forbid")

    sc: str = ""
    pq: str = ""


class DistillationRow(BaseModel):
    """One edit and what the teacher says of it."""

    model_config = ConfigDict(extra="forbid")

    key: Name
    instruction: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=10_000)]
    source: str
    """Path of the picture; in the folder of taught edits its sha256."""
    edit: str
    editor: Name
    sc: tuple[Point, Point]
    pq: tuple[Point, Point]
    reasoning: DistillationReasons | str = DistillationReasons()

    @property
    def points(self) -> tuple[float, float, float, float]:
        return (*self.sc, *self.pq)

    @property
    def reasons(self) -> tuple[str, str]:
        """To SC and to PQ, empty where the teacher gave none."""
        return (self.reasoning, "") if isinstance(self.reasoning, str) else (self.reasoning.sc, self.reasoning.pq)


def import_distillation_rows(
    file: Path, output: Path, *, top: int = 25, least_best: float = 0.0, least_spread: float = 0.0
) -> dict[str, int]:
    """Check a teacher's rows, sift their groups, write the folder of taught edits; returns what was kept and dropped.

    A group is dropped when its best edit's O (0..10) is below `least_best`, as no editor did what was asked, or when
    the standard deviation of its edits' O is below `least_spread`, as it tells nothing apart. One EditLoopError names
    every faulty row by its line, and nothing is written; so too where nothing is left.
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
    """Rows by key, all of them sound; EditLoopError with every fault otherwise."""
    groups: dict[str, list[DistillationRow]] = defaultdict(list)
    faults: list[str] = []
    first_lines: dict[tuple[str, str], int] = {}
    pictures: dict[Path, str] = {}
    try:
        lines = file.read_text().split("\n")
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
        omitted = [f"... and {len(faults) - ROW_FAULTS_LISTED} more"] if len(faults) > ROW_FAULTS_LISTED else []
        raise EditLoopError(
            "\n".join([f"{file}: {len(faults)} faults; nothing was written.", *faults[:ROW_FAULTS_LISTED], *omitted])
        )
    if not groups:
        raise EditLoopError(f"{file}: no rows; write one JSON object a line.")
    return dict(groups)


def _row(line: str, top: int) -> DistillationRow | str:
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
    """What is wrong with a picture, empty for nothing."""
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
    """The row with its pictures in the folder, named by their content."""
    names: dict[str, str] = {}
    for role in ("source", "edit"):
        data = (folder / getattr(row, role)).read_bytes()
        names[role] = sha256_bytes(data)
        (images / names[role]).write_bytes(data)
    return row.model_copy(update=names)


def read_distillation_rows(folder: Path, split: str) -> list[list[DistillationRow]]:
    """The rows of one split (`train`, `validation`) of a folder of taught edits, by group, in its order."""
    groups: dict[str, list[DistillationRow]] = defaultdict(list)
    for line in filter(None, (folder / ROWS_FILE.format(split=split)).read_text().split("\n")):
        row = DistillationRow.model_validate_json(line)
        groups[row.key].append(row)
    return list(groups.values())


def read_distillation_picture(folder: Path, sha256: str) -> Any:
    """(height, width, 3) uint8: a picture of a folder of taught edits."""
    return np.asarray(load_image(folder / "images" / sha256))

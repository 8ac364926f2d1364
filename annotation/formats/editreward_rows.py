"""Import and export of EditReward's public rows (arXiv 2509.26346).

A file is a JSON list or JSON lines, one preference pair a row:

    {"prompt": ..., "path_src": ..., "path1": preferred, "path2": ..., "model1": ..., "model2": ...,
     "model1_dim1_score": 1..4, "model1_dim2_score": 1..4, "model1_overall_score": 2..8, the same of model2,
     "tie_case": bool, "choice_dist": null | [for path1, for path2], "confidence": null | 0..1}

Dimension 1 is instruction following, dimension 2 is visual quality, and overall is their sum. An overall tie whose axes
disagree takes two rows, each image preferred once; a tie on both axes takes one row without an order. Paths are
relative to the file.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from annotation.formats.judgements_folder import write_imported
from annotation.formats.ratings_table import SHOWN_FAULTS, UNKNOWN_TIME
from editloop.content import complete_folder, write_file
from editloop.data.picture_file import load_image, picture_sha256, png_bytes
from editloop.data.vocabulary import Candidate, EditTask, Judgement, candidate_id, task_id
from editloop.errors import EditLoopError, listed_faults

log = logging.getLogger(__name__)

Score = Annotated[int, Field(ge=1, le=4)]
RATER = "editreward"


class PublicRow(BaseModel):
    """One row of the format; unknown columns are ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    prompt: Annotated[str, Field(min_length=1)]
    path_src: str
    path1: str
    path2: str
    model1: str
    model2: str
    model1_dim1_score: Score
    model1_dim2_score: Score
    model1_overall_score: int | None = None
    model2_dim1_score: Score
    model2_dim2_score: Score
    model2_overall_score: int | None = None
    tie_case: bool = False
    choice_dist: list[float] | None = None
    confidence: float | None = None

    def ratings(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return (instruction following, visual quality) of path1 and of path2."""
        return ((self.model1_dim1_score, self.model1_dim2_score), (self.model2_dim1_score, self.model2_dim2_score))

    def contradictions(self) -> Iterator[str]:
        """Yield a message for each contradiction within the row."""
        overall = [sum(scores) for scores in self.ratings()]
        for number, stated in ((1, self.model1_overall_score), (2, self.model2_overall_score)):
            if stated is not None and stated != overall[number - 1]:
                yield f"model{number}_overall_score = {stated}: the two scores add up to {overall[number - 1]}"
        if overall[0] < overall[1]:
            yield f"path1 is the preferred one, but its overall is {overall[0]} and path2's {overall[1]}"
        if self.tie_case and overall[0] != overall[1]:
            yield f"tie_case = true, but the overall scores are {overall[0]} and {overall[1]}"


class _Picture(NamedTuple):
    sha256: str
    png: bytes


def import_rows(path: Path, candidates: Path, judgements: Path) -> dict[str, int]:
    """Import public rows as a candidates folder and a judgements folder.

    Rows do not name their raters. Rows that give one image different scores must come from different people, so each
    row goes to the first of `editreward-1`, `editreward-2`, ... whose earlier ratings of the task it does not
    contradict. Both ratings of a row go to the same rater.

    Args:
        path: The file of rows.
        candidates: Candidates folder to write.
        judgements: Judgements folder to write.

    Returns:
        The numbers of {"rows", "tasks", "judgements"}.

    Raises:
        EditLoopError: The file has faults. The message lists at most SHOWN_FAULTS of them, and nothing is written.
    """
    rows, faults = _read_rows(path)
    pictures: dict[str, _Picture | None] = {}
    for number, row in rows:
        for key, name in (("path_src", row.path_src), ("path1", row.path1), ("path2", row.path2)):
            if name not in pictures:
                try:
                    pictures[name] = _load(path.parent, name)
                except EditLoopError as error:
                    pictures[name] = None
                    faults.append(f"{path}: row {number}: {key}: {error}")
        if pictures[row.path1] is not None and pictures[row.path1] == pictures[row.path2]:
            faults.append(f"{path}: row {number}: {row.path1} and {row.path2} are the same picture")
    if faults:
        heading = f"{path}: {len(faults)} fault{'s' * (len(faults) > 1)}; nothing was written."
        raise listed_faults(heading, faults, SHOWN_FAULTS)
    loaded = {name: picture for name, picture in pictures.items() if picture is not None}
    tasks: dict[str, EditTask] = {}
    raters: dict[str, list[dict[str, tuple[int, int]]]] = {}
    for _, row in rows:
        source = loaded[row.path_src].sha256
        key = task_id(source, row.prompt)
        task = tasks.setdefault(key, EditTask(task_id=key, name=key, instruction=row.prompt, source=source))
        row_ratings = {}
        pair = zip((row.path1, row.path2), (row.model1, row.model2), row.ratings(), strict=True)
        for name, editor, ratings in pair:
            candidate = Candidate(
                candidate_id=candidate_id(key, loaded[name].sha256), image=loaded[name].sha256, editor=editor
            )
            row_ratings[candidate.candidate_id] = ratings
            if candidate.candidate_id not in {earlier.candidate_id for earlier in task.candidates}:
                task = tasks[key] = task.model_copy(update={"candidates": (*task.candidates, candidate)})
        people = raters.setdefault(key, [])
        rater = next((person for person in people if all(person.get(c, r) == r for c, r in row_ratings.items())), None)
        if rater is None:
            people.append(rater := {})
        rater.update(row_ratings)
    imported_judgements = list(_judgements(tasks, raters))
    with complete_folder(candidates, {"imported": path.name}) as folder:
        (folder / "images").mkdir()
        for picture in loaded.values():
            (folder / "images" / f"{picture.sha256}.png").write_bytes(picture.png)
        lines = [tasks[key].model_dump_json(by_alias=True) + "\n" for key in sorted(tasks)]
        write_file(folder / "tasks.jsonl", "".join(lines))
    write_imported(judgements, imported_judgements, list(tasks.values()), path, candidates / "images")
    return {"rows": len(rows), "tasks": len(tasks), "judgements": len(imported_judgements)}


def export_rows(judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path, output: Path) -> int:
    """Export judgements as public rows: `output`/rows.jsonl and its images.

    A row is one annotator's order of two candidates of a task; ties are as in the module's description. Where several
    annotators rated both candidates, `choice_dist` counts how many prefer each, and `confidence` is the share of all
    of them who prefer this row's path1. With one annotator both are null.

    Args:
        judgements: The judgements to export.
        tasks: Tasks of the candidates folder. Judgements of other candidates are left out; a warning counts them.
        candidates: The candidates folder, which holds the images.
        output: Folder to write.

    Returns:
        The number of rows.

    Raises:
        EditLoopError: A judged task is not in `tasks`.
    """
    tasks_by_id = {task.task_id: task for task in tasks}
    ratings: dict[str, dict[str, dict[str, tuple[int, int]]]] = {}
    for judgement in judgements:
        by_annotator = ratings.setdefault(judgement.task_id, {}).setdefault(judgement.annotator, {})
        by_annotator[judgement.candidate_id] = (judgement.instruction_following, judgement.visual_quality)
    rows, used, strangers = [], set(), 0
    for key, task_ratings in sorted(ratings.items()):
        if key not in tasks_by_id:
            raise EditLoopError(f"Task {key} is judged, but not in {candidates}: give the folder that was asked about.")
        by_id = {candidate.candidate_id: candidate for candidate in tasks_by_id[key].candidates}
        strangers += sum(len(levels.keys() - by_id.keys()) for levels in task_ratings.values())
        for a, b in combinations(sorted(by_id), 2):
            pair_ratings = {
                who: (levels[a], levels[b])
                for who, levels in sorted(task_ratings.items())
                if a in levels and b in levels
            }
            rows += [
                row for who in pair_ratings for row in _rows(tasks_by_id[key], by_id[a], by_id[b], pair_ratings, who)
            ]
            used |= {tasks_by_id[key].source, by_id[a].image, by_id[b].image} if pair_ratings else set()
    if strangers:
        log.warning("%d judgements left out: %s does not have their candidates", strangers, candidates)
    with complete_folder(output, {"rows": len(rows)}) as folder:
        (folder / "images").mkdir()
        for image in sorted(used):
            (folder / "images" / f"{image}.png").write_bytes((candidates / "images" / f"{image}.png").read_bytes())
        write_file(folder / "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return len(rows)


PairRatings = dict[str, tuple[tuple[int, int], tuple[int, int]]]
"""Ratings of two candidates by annotator: ((if, vq) of a, (if, vq) of b)."""


def _rows(task: EditTask, a: Candidate, b: Candidate, pair_ratings: PairRatings, who: str) -> list[dict[str, Any]]:
    """Return one annotator's rows of a pair: one, or two for a tie whose axes disagree."""
    of_a, of_b = pair_ratings[who]
    margin = sum(of_a) - sum(of_b)
    sides = [(a, b, of_a, of_b)] if margin >= 0 else [(b, a, of_b, of_a)]
    if margin == 0 and of_a != of_b:
        sides.append((b, a, of_b, of_a))
    differences = [sum(x) - sum(y) for x, y in pair_ratings.values()]
    votes = [sum(difference > 0 for difference in differences), sum(difference < 0 for difference in differences)]
    rows = []
    for better, worse, high, low in sides:
        side_votes = votes if better is a else votes[::-1]
        several = len(pair_ratings) > 1
        rows.append(
            {
                "prompt": task.instruction,
                "choice_dist": side_votes if several else None,
                "confidence": side_votes[0] / len(pair_ratings) if several else None,
                "path_src": f"images/{task.source}.png",
                "path1": f"images/{better.image}.png",
                "path2": f"images/{worse.image}.png",
                "model1": better.editor,
                "model2": worse.editor,
                "model1_dim1_score": high[0],
                "model1_dim2_score": high[1],
                "model1_overall_score": sum(high),
                "model2_dim1_score": low[0],
                "model2_dim2_score": low[1],
                "model2_overall_score": sum(low),
                "tie_case": margin == 0,
            }
        )
    return rows


def _judgements(tasks: dict[str, EditTask], raters: dict[str, list[dict[str, tuple[int, int]]]]) -> Iterator[Judgement]:
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


def _read_rows(path: Path) -> tuple[list[tuple[int, PublicRow]], list[str]]:
    """Return (number, row) of all rows that parse, and all faults; rows are numbered from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        is_list = text.lstrip().startswith("[")
        values = json.loads(text) if is_list else [json.loads(line) for line in text.split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise EditLoopError(f"{path}: neither a JSON list nor JSON lines of rows ({error}).") from error
    if not values:
        raise EditLoopError(f"{path}: holds no rows.")
    rows, faults = [], []
    for number, value in enumerate(values, start=1):
        try:
            row = PublicRow.model_validate(value)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                where = ".".join(str(part) for part in details["loc"]) or "row"
                stated = "" if details["type"] == "missing" else f" = {str(details['input'])[:60]!r}"
                faults.append(f"{path}: row {number}: {where}{stated}: {details['msg'][0].lower()}{details['msg'][1:]}")
            continue
        faults += [f"{path}: row {number}: {fault}" for fault in row.contradictions()]
        rows.append((number, row))
    return rows, faults


def _load(folder: Path, name: str) -> _Picture:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise EditLoopError(f"{name!r} leaves the folder {folder}; copy the picture into it")
    picture = load_image(path)
    return _Picture(picture_sha256(picture), png_bytes(picture))

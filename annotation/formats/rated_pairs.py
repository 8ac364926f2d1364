"""Pairs of rated edits, as the exports of EditReward's formats write them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from annotation.formats.editreward_pairs import Ratings
from editloop.data.vocabulary import Candidate, EditTask, Judgement
from editloop.errors import EditLoopError

PairRatings = dict[str, tuple[Ratings, Ratings]]
"""Ratings of two candidates by annotator: ((if, vq) of a, (if, vq) of b)."""
SEVERAL_IMAGES = "judgements of tasks with reference images, for which EditReward's formats have no place"
"""Why judgements of tasks of several source images are not written."""


class ExportReport(NamedTuple):
    """What an export wrote."""

    rows: int
    left_out: dict[str, int]
    """What was not written, in words, and how often."""


class CandidatePair(NamedTuple):
    """Two candidates of a task, and the ratings of all annotators who rated both."""

    task: EditTask
    a: Candidate
    b: Candidate
    ratings: PairRatings


def rated_pairs(
    judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path, left_out: Counter[str]
) -> Iterator[CandidatePair]:
    """Yield all pairs of a task's candidates that an annotator rated, task after task.

    Tasks with reference images are left out: EditReward's formats have one source.

    Args:
        judgements: The judgements.
        tasks: Tasks of the candidates folder.
        candidates: The candidates folder, for messages.
        left_out: Counts the judgements that are in no pair, by the reason in words.

    Raises:
        EditLoopError: A judged task is not in `tasks`.
    """
    tasks_by_id = {task.task_id: task for task in tasks}
    for key, ratings in sorted(ratings_by_annotator(judgements).items()):
        task = judged_task(tasks_by_id, key, candidates)
        if task.references:
            left_out[SEVERAL_IMAGES] += sum(map(len, ratings.values()))
            continue
        by_id = {candidate.candidate_id: candidate for candidate in task.candidates}
        for who, levels in ratings.items():
            known = {candidate: rating for candidate, rating in levels.items() if candidate in by_id}
            if len(levels) > len(known):
                left_out[f"judgements of edits that {candidates} does not have"] += len(levels) - len(known)
            if len(known) == 1:
                left_out["judgements by somebody who rated no other edit of the task"] += 1
            ratings[who] = known
        for a, b in combinations(sorted(by_id), 2):
            pair_ratings = {
                who: (levels[a], levels[b]) for who, levels in sorted(ratings.items()) if a in levels and b in levels
            }
            if pair_ratings:
                yield CandidatePair(task, by_id[a], by_id[b], pair_ratings)


def ratings_by_annotator(judgements: Sequence[Judgement]) -> dict[str, dict[str, dict[str, Ratings]]]:
    """Return each rating by task, annotator and candidate.

    Args:
        judgements: The judgements.
    """
    ratings: dict[str, dict[str, dict[str, Ratings]]] = {}
    for judgement in judgements:
        by_annotator = ratings.setdefault(judgement.task_id, {}).setdefault(judgement.annotator, {})
        by_annotator[judgement.candidate_id] = (judgement.instruction_following, judgement.visual_quality)
    return ratings


def judged_task(tasks: dict[str, EditTask], key: str, candidates: Path) -> EditTask:
    """Return a judged task.

    Args:
        tasks: Tasks of the candidates folder by id.
        key: Id of the task.
        candidates: The candidates folder, for the message.

    Raises:
        EditLoopError: The folder does not have it.
    """
    if key not in tasks:
        raise EditLoopError(f"Task {key} is judged, but not in {candidates}: give the folder that was asked about.")
    return tasks[key]


def picture_path(candidates: Path, sha256: str) -> Path:
    """Return the file of a picture.

    Args:
        candidates: The candidates folder.
        sha256: The picture's identity.

    Raises:
        EditLoopError: The file is missing.
    """
    path = candidates / "images" / f"{sha256}.png"
    if not path.is_file():
        raise EditLoopError(f"{path}: no such file, but a task names it. Restore it, or make the candidates again.")
    return path

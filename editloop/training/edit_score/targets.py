"""Answers that EditScore learns: reasoning and points of an edit, from a teacher or from experts' ratings, as rows."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES as RATED
from editloop.data.vocabulary import HIGHEST_RATING, LOWEST_RATING
from editloop.models.edit_score.rows import PromptRow, RowMaker
from editloop.models.edit_score.settings import AXES, DIGITS, EditScoreSettings
from editloop.models.judge_protocol import EditGroup

RATING_OF = dict(zip(AXES, ("if", "vq", "vq", "vq"), strict=True))
"""Axis of the experts' ratings that each point is learnt from. Experts rate needless changes, naturalness and artefacts
as one: visual quality."""
POINT_WORDS = ("none", "poor", "weak", "fair", "good", "full")
"""Words for points in a written reasoning, from 0 to the top in equal steps."""


class Target(NamedTuple):
    """Answer that is to be learnt for one edit."""

    points: tuple[float | None, float | None, float | None, float | None]
    """Points in the order of AXES, 0..top. None for both of a question that is not to be learnt."""
    reasoning: tuple[str, str] = ("", "")
    """Reasoning for SC and for PQ. Where one is empty, a short one is written from the points."""


def targets_from_ratings(ratings: Float[NDArray[np.floating], "edits 2"], top: int) -> list[Target]:
    """Convert experts' mean ratings to targets in whole points, linearly: rating 1 is 0 points, rating 4 is `top`.

    Args:
        ratings: Mean ratings, 1..4: instruction following, then visual quality.
        top: Highest point.

    Returns:
        One target per edit.
    """
    share = (np.asarray(ratings, np.float64) - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)
    columns = [RATED.index(RATING_OF[axis]) for axis in AXES]
    return [Target(tuple(row)) for row in np.round(share[:, columns] * top).tolist()]


def rows_per_edit(settings: EditScoreSettings, questions: int) -> int:
    """Return the number of rows that teach one edit: one per question, or without reasoning one per point.

    Args:
        settings: The model's settings.
        questions: Number of questions that are to be learnt, 1 or 2.
    """
    return questions if settings.reasoning else questions * len(AXES) // len(settings.questions)


def training_rows(rows: RowMaker, group: EditGroup, targets: Sequence[Target]) -> list[list[PromptRow]]:
    """Return the rows that teach the targets of a group's edits.

    With reasoning, an edit has an answer to SC and one to PQ. Without reasoning, it has one digit for each of its four
    points. A question that the target leaves out has none.

    Args:
        rows: Maker of the model's rows.
        group: The edits.
        targets: One target per edit.

    Returns:
        For each edit its rows.
    """
    top, questions = rows.settings.top, rows.settings.questions
    rows_by_edit = []
    for question_rows, target in zip(rows.ask(group), targets, strict=True):
        asked = _learnt(target)
        if rows.settings.reasoning:
            prompts: list[PromptRow] = [question_rows[index] for index in asked]
            answers = [
                answer_text(target.reasoning[index] or written_reasoning(questions[index].axes, points, top), points)
                for index, points in asked.items()
            ]
        else:
            point_rows = rows.points(question_rows)
            prompts = [row for index in asked for row in point_rows[2 * index : 2 * index + 2]]
            answers = [str(round(point / top * (len(DIGITS) - 1))) for points in asked.values() for point in points]
        rows_by_edit.append([rows.answered(row, answer) for row, answer in zip(prompts, answers, strict=True)])
    return rows_by_edit


def _learnt(target: Target) -> dict[int, tuple[float, float]]:
    """Return the points of each question that is to be learnt, by its place among the model's questions."""
    halves = {0: target.points[:2], 1: target.points[2:]}
    return {
        index: (first, second) for index, (first, second) in halves.items() if first is not None and second is not None
    }


def answer_text(reasoning: str, points: Sequence[float]) -> str:
    """Return an answer in the JSON form that the parser reads. Whole points have no decimal.

    Args:
        reasoning: The reasoning.
        points: Points of the question's axes.
    """
    score = [int(point) if float(point).is_integer() else point for point in points]
    return json.dumps({"reasoning": reasoning, "score": score}, ensure_ascii=False)


def written_reasoning(axes: Sequence[str], points: Sequence[float], top: int) -> str:
    """Write a reasoning from the points alone, such as `prompt following good, consistency full`.

    Args:
        axes: Names of the question's axes.
        points: Points of these axes, 0..top.
        top: Highest point.
    """
    words = [POINT_WORDS[round(point / top * (len(POINT_WORDS) - 1))] for point in points]
    return ", ".join(f"{axis.replace('_', ' ')} {word}" for axis, word in zip(axes, words, strict=True))

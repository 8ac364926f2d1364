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

    points: tuple[float, float, float, float]
    """Points in the order of AXES, 0..top."""
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


def rows_per_edit(settings: EditScoreSettings) -> int:
    """Return the number of rows that teach one edit: one per question, or without reasoning one per point.

    Args:
        settings: The model's settings.
    """
    return 2 if settings.reasoning else len(AXES)


def training_rows(rows: RowMaker, group: EditGroup, targets: Sequence[Target]) -> list[list[PromptRow]]:
    """Return the rows that teach the targets of a group's edits.

    With reasoning, an edit has an answer to SC and one to PQ. Without reasoning, it has one digit for each of its four
    points.

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
        prompts: Sequence[PromptRow] = question_rows
        if rows.settings.reasoning:
            halves = zip(questions, (target.points[:2], target.points[2:]), target.reasoning, strict=True)
            answers = [
                answer_text(reasoning or written_reasoning(question.axes, points, top), points)
                for question, points, reasoning in halves
            ]
        else:
            prompts = rows.points(question_rows)
            answers = [str(round(point / top * (len(DIGITS) - 1))) for point in target.points]
        rows_by_edit.append([rows.answered(row, answer) for row, answer in zip(prompts, answers, strict=True)])
    return rows_by_edit


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

"""What EditScore is to answer: reasons and points of an edit, from a teacher or from experts' ratings, as rows."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES as RATED
from editloop.data.vocabulary import HIGHEST_RATING, LOWEST_RATING
from editloop.models.edit_score.rows import PromptRow, RowMaker
from editloop.models.edit_score.settings import AXES, DIGITS, EditScoreSettings
from editloop.models.judge_protocol import EditGroup

RATING_OF = dict(zip(AXES, ("if", "vq", "vq", "vq"), strict=True))
"""Which of the experts' axes teaches each point: they rate what changed needlessly, how natural it looks and what is
broken as one, visual quality."""
POINT_WORDS = ("none", "poor", "weak", "fair", "good", "full")
"""What points are called in a written reasoning, from 0 to the top in equal steps."""


class Target(NamedTuple):
    """What is to be answered about one edit."""

    points: tuple[float, float, float, float]
    """0..top, in the order of AXES."""
    reasoning: tuple[str, str] = ("", "")
    """To SC and to PQ; where one is empty a short one is written from the points."""


def targets_from_ratings(ratings: NDArray[np.floating], top: int) -> list[Target]:
    """Targets of experts' mean ratings, (K, 2) in 1..4: 1 is 0 points and 4 is the top, linear, whole points."""
    share = (np.asarray(ratings, np.float64) - LOWEST_RATING) / (HIGHEST_RATING - LOWEST_RATING)
    columns = [RATED.index(RATING_OF[axis]) for axis in AXES]
    return [Target(tuple(row)) for row in np.round(share[:, columns] * top).tolist()]


def rows_per_edit(settings: EditScoreSettings) -> int:
    """How many rows teach one edit: an answer a question, or without reasoning a digit a point."""
    return 2 if settings.reasoning else len(AXES)


def training_rows(rows: RowMaker, group: EditGroup, targets: Sequence[Target]) -> list[list[PromptRow]]:
    """For each edit of a group the rows that teach its target: SC and PQ, or without reasoning its four digits."""
    top, questions = rows.settings.top, rows.settings.questions
    rows_by_edit = []
    for question_rows, target in zip(rows.ask(group), targets, strict=True):
        if not rows.settings.reasoning:
            levels = [str(round(point / top * (len(DIGITS) - 1))) for point in target.points]
            rows_by_edit.append(
                [rows.answered(row, level) for row, level in zip(rows.points(question_rows), levels, strict=True)]
            )
            continue
        halves = (target.points[:2], target.points[2:])
        rows_by_edit.append(
            [
                rows.answered(row, answer_text(reasoning or written_reasoning(question.axes, points, top), points))
                for row, question, points, reasoning in zip(
                    question_rows, questions, halves, target.reasoning, strict=True
                )
            ]
        )
    return rows_by_edit


def answer_text(reasoning: str, points: Sequence[float]) -> str:
    """The answer as the parser wants it; whole points without a decimal."""
    score = [int(point) if float(point).is_integer() else point for point in points]
    return json.dumps({"reasoning": reasoning, "score": score}, ensure_ascii=False)


def written_reasoning(axes: Sequence[str], points: Sequence[float], top: int) -> str:
    """A reasoning from the points alone, where nobody wrote one: `prompt following good, consistency full`."""
    words = [POINT_WORDS[round(point / top * (len(POINT_WORDS) - 1))] for point in points]
    return ", ".join(f"{axis.replace('_', ' ')} {word}" for axis, word in zip(axes, words, strict=True))

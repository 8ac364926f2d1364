"""Compute scores from points: S_SC, S_PQ, O and their mean over passes (EditScore, arXiv 2509.23909). Pure functions.

Points are (..., 4): edit success, restraint, naturalness, freedom from artefacts, each 0..top. Scores are 0..10.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from editloop.models.edit_score.answers import AnswerFault, ParsedAnswer, parse_answer
from editloop.models.edit_score.settings import AXES, DIGITS, EditScoreSettings
from editloop.models.judge_protocol import AxisScore, Score

SCALE = 10.0
"""The highest score of an axis, and of O."""


def overall(points: ArrayLike, top: float) -> Float[NDArray[np.float64], "*edits"]:
    """Return O = sqrt(S_SC * S_PQ), 0..10. S is the lesser of a question's two points, scaled to 0..10.

    Args:
        points: Points (..., 4), each 0..top.
        top: The highest point.
    """
    scaled = np.asarray(points, np.float64) * (SCALE / top)
    return np.asarray(np.sqrt(scaled[..., :2].min(-1) * scaled[..., 2:].min(-1)))


def score_of_answers(sc: Sequence[str], pq: Sequence[str], settings: EditScoreSettings) -> Score:
    """Return the Avg@K score of an edit from its K answers to SC and to PQ.

    Args:
        sc: The answers to SC.
        pq: The answers to PQ.
        settings: Settings of the model that answered.
    """
    passes = [_points_of_pass(answers, settings.top) for answers in zip(sc, pq, strict=True)]
    return replace(average_passes(passes, settings.top, settings.least_share), answers=(*sc, *pq))


def _points_of_pass(answers: Sequence[str], top: float) -> tuple[float, ...] | AnswerFault:
    """Return the four points of one pass, or the first fault of its two answers."""
    points: tuple[float, ...] = ()
    for text in answers:
        parsed = parse_answer(text, top)
        if not isinstance(parsed, ParsedAnswer):
            return parsed
        points += parsed.points
    return points


def average_passes(passes: Sequence[Sequence[float] | str], top: float, least_share: float) -> Score:
    """Return the Avg@K score: the mean over the passes with both answers.

    sigma is the standard deviation over those passes (0 for one). With fewer than ceil(least_share * K) of them the
    score is missing, and its reason counts the faults.

    Args:
        passes: For each of K passes its four points, or the name of a fault.
        top: The highest point.
        least_share: Share of the passes that must have points.
    """
    points = [entry for entry in passes if not isinstance(entry, str)]
    answered = np.array(points, np.float64).reshape(-1, len(AXES))
    if len(answered) < math.ceil(least_share * len(passes)):
        faults = Counter(entry for entry in passes if isinstance(entry, str))
        fault_counts = ", ".join(f"{fault} {count}" for fault, count in sorted(faults.items()))
        return Score(missing=f"{len(passes) - len(answered)} of {len(passes)} passes gave no score: {fault_counts}")
    scaled, overall_scores = answered * (SCALE / top), overall(answered, top)
    axes = {
        name: AxisScore(float(column.mean()), float(column.std())) for name, column in zip(AXES, scaled.T, strict=True)
    }
    fused = AxisScore(float(overall_scores.mean()), float(overall_scores.std()))
    return Score(axes, fused, fused.mean, fused.mean / SCALE)


def expected_score(chances: Float[NDArray[np.floating], "4 6"], least_mass: float) -> Score:
    """Return the score without reasoning: means and standard deviations under the digits' probabilities.

    Those of O are computed exactly, with independent points.

    Args:
        chances: Probabilities of the digits 0..5 as the next token, for each of the four points. Rows need not
            sum to 1.
        least_mass: The score is missing where a row's sum is below this.
    """
    mass = chances.sum(axis=1)
    if not np.isfinite(mass).all() or mass.min() < max(least_mass, 1e-12):
        worst = int(np.where(np.isfinite(mass), mass, -1).argmin())
        return Score(missing=f"{AXES[worst]}: digits hold {mass[worst]:.2f} of the probability, below {least_mass:g}")
    normalised = np.asarray(chances / mass[:, None], np.float64)
    levels = np.linspace(0.0, SCALE, len(DIGITS))
    axes = {name: _moments(row, levels) for name, row in zip(AXES, normalised, strict=True)}
    sc, pq = _distribution_of_lesser(*normalised[:2]), _distribution_of_lesser(*normalised[2:])
    fused = _moments(np.outer(sc, pq).ravel(), np.sqrt(np.outer(levels, levels)).ravel())
    return Score(axes, fused, fused.mean, fused.mean / SCALE)


def _moments(
    chances: Float[NDArray[np.floating], " outcomes"], values: Float[NDArray[np.floating], " outcomes"]
) -> AxisScore:
    mean = float(chances @ values)
    return AxisScore(mean, math.sqrt(max(0.0, float(chances @ (values - mean) ** 2))))


def _distribution_of_lesser(
    first: Float[NDArray[np.floating], " digits"], second: Float[NDArray[np.floating], " digits"]
) -> Float[NDArray[np.floating], " digits"]:
    """Return the distribution of the lesser of two independent digits: P(min >= d) is the product of the two tails."""
    tails = np.append(first[::-1].cumsum()[::-1] * second[::-1].cumsum()[::-1], 0.0)
    distribution: NDArray[np.floating] = tails[:-1] - tails[1:]
    return distribution

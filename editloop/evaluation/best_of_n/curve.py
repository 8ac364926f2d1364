"""The expected value of the best of N edits, for each N, from one set of edits. Pure functions on arrays."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError
from editloop.statistics.bootstrap import percentile_intervals, resampled_ratios, sum_by_cluster

Values = NDArray[np.float64]


class CurvePoint(NamedTuple):
    """A point of a curve."""

    best_of: int
    """N."""
    value: float
    """Mean over tasks of the expected value of the best of N edits."""
    ends: tuple[float, float] | None
    """95 % interval over tasks; None if there is only one source image."""


def expected_best(scores: Values, values: Values, count: int) -> Values:
    """Return the value of the highest-scored of `count` edits, averaged over all choices of `count` of the M edits.

    In ascending order of score, the edit of rank k (from 1) is the best in C(k - 1, count - 1) of the C(M, count)
    choices. Edits of equal score share their chances.

    Args:
        scores: Scores to choose by, (T, M); a missing score (NaN) ranks below all others.
        values: Values of the edits, (T, M).
        count: Number of edits to choose from, 1..M.

    Returns:
        The expected values, (T,).

    Raises:
        EditLoopError: `count` is not in 1..M.
    """
    tasks, edits_per_task = scores.shape
    if not 1 <= count <= edits_per_task:
        raise EditLoopError(
            f"best of {count}: there are {edits_per_task} edits a task; take 1 to {edits_per_task}, or make more."
        )
    chances = np.array([math.comb(rank, count - 1) for rank in range(edits_per_task)], dtype=float)
    chances /= math.comb(edits_per_task, count)
    ranking_scores = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(ranking_scores, axis=1)
    expected_values = np.zeros(tasks)
    for task in range(tasks):
        ranked = ranking_scores[task, order[task]]
        _, group = np.unique(ranked, return_inverse=True)
        shared = np.bincount(group, chances) / np.bincount(group)
        expected_values[task] = (shared[group] * values[task, order[task]]).sum()
    return expected_values


def best_of_curve(
    scores: Values, values: Values, counts: Sequence[int], clusters: Sequence[str], *, seed: int = 0
) -> list[CurvePoint]:
    """Average `expected_best` over the tasks for each count, with 95 % intervals by a cluster bootstrap.

    Args:
        scores: Scores to choose by, (T, M).
        values: Values of the edits, (T, M).
        counts: Numbers of edits to choose from, 1..M each.
        clusters: Cluster of each task, (T,); clusters are resampled as a whole.
        seed: Seed of the bootstrap.

    Returns:
        One point per count.

    Raises:
        EditLoopError: A count is not in 1..M.
    """
    task_values = np.stack([expected_best(scores, values, count) for count in counts], axis=1)
    ratios = resampled_ratios(*sum_by_cluster(task_values, np.ones_like(task_values), clusters), seed=seed)
    return [
        CurvePoint(count, float(value), None if np.isnan(ends).any() else (float(ends[0]), float(ends[1])))
        for count, value, ends in zip(counts, ratios.values, percentile_intervals(ratios), strict=True)
    ]

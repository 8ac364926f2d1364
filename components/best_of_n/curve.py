"""What the best of N edits is worth, N by N, from one set of edits. Pure functions on arrays."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.gates.bootstrap import by_cluster, interval, resampled_ratios
from infra.errors import EditLoopError

Values = NDArray[np.float64]


class Point(NamedTuple):
    """A point of a curve."""

    best_of: int
    """N."""
    value: float
    ends: tuple[float, float] | None
    """95 % interval over tasks; None where there is one source picture."""


def expected_best(scores: Values, values: Values, count: int) -> Values:
    """Value (T,) of the highest-scored of `count` edits, in the mean over all choices of `count` of the M edits.

    scores, values: (T, M). In ascending order the edit of rank k (from 1) is the best of C(k - 1, count - 1) of the
    C(M, count) choices. Equal scores share their chances; a missing score (NaN) is below all others.
    """
    tasks, made = scores.shape
    if not 1 <= count <= made:
        raise EditLoopError(f"best of {count}: there are {made} edits a task; take 1 to {made}, or make more.")
    chances = np.array([math.comb(rank, count - 1) for rank in range(made)], dtype=float)
    chances /= math.comb(made, count)
    known = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(known, axis=1)
    found = np.zeros(tasks)
    for task in range(tasks):
        ranked = known[task, order[task]]
        _, group = np.unique(ranked, return_inverse=True)
        shared = np.bincount(group, chances) / np.bincount(group)
        found[task] = (shared[group] * values[task, order[task]]).sum()
    return found


def best_of_curve(
    scores: Values, values: Values, counts: Sequence[int], clusters: Sequence[str], *, seed: int = 0
) -> list[Point]:
    """Mean over tasks of `expected_best` for each count, with 95 % intervals by resampling clusters (T,) of tasks."""
    each = np.stack([expected_best(scores, values, count) for count in counts], axis=1)
    found = resampled_ratios(*by_cluster(each, np.ones_like(each), clusters), seed=seed)
    return [
        Point(count, float(value), None if np.isnan(ends).any() else (float(ends[0]), float(ends[1])))
        for count, value, ends in zip(counts, found.values, interval(found), strict=True)
    ]

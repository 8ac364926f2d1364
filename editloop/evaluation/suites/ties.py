"""Accuracy with ties (arXiv 2305.14324): outcomes of pairs, and the tie threshold of a judge's scores. Pure functions.

The accuracy is the share of pairs that people and judge order alike or both call a tie. A judge's scores are a tie if
they differ by no more than a threshold.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class PairOutcome(IntEnum):
    """Outcome of a pair, from best to worst: a unit of several pairs takes its worst outcome."""

    RIGHT = 0
    """People and judge prefer the same edit."""
    BOTH_TIES = 1
    """Neither prefers an edit; in a suite of four words, both use the same word."""
    OTHER_TIE = 2
    """Neither prefers an edit, but one says `tie` and the other `both_bad`."""
    HUMAN_TIE = 3
    """The judge prefers an edit, people do not."""
    MODEL_TIE = 4
    """People prefer an edit, the judge does not."""
    WRONG = 5
    """People and judge prefer different edits."""
    MISSING = 6
    """The judge gave no answer."""


def pair_outcomes(human: Floats, judge: Floats) -> Codes:
    """Return the outcomes of N pairs.

    Args:
        human: People's preferences, (N,): 1 left, -1 right, 0 tie.
        judge: The judge's preferences, (N,), likewise; NaN where missing.

    Returns:
        (N,), values of `PairOutcome`.
    """
    codes = np.full(len(human), PairOutcome.WRONG, dtype=np.int64)
    codes[(human != 0) & (judge == human)] = PairOutcome.RIGHT
    codes[(human == 0) & (judge == 0)] = PairOutcome.BOTH_TIES
    codes[(human == 0) & (judge != 0)] = PairOutcome.HUMAN_TIE
    codes[(human != 0) & (judge == 0)] = PairOutcome.MODEL_TIE
    codes[np.isnan(judge)] = PairOutcome.MISSING
    return codes


def preference_signs(difference: Floats, threshold: Floats | float) -> Floats:
    """Return the preferences that score differences express.

    Args:
        difference: Scores of the left edits minus scores of the right ones, (N,); NaN where missing.
        threshold: Largest absolute difference that is a tie, one for all pairs or (N,).

    Returns:
        (N,): 1 left, -1 right, 0 tie, NaN where missing.
    """
    signs = np.where(np.abs(difference) <= threshold, 0.0, np.sign(difference))
    return np.asarray(np.where(np.isnan(difference), np.nan, signs))


def best_threshold(human: Floats, difference: Floats) -> float:
    """Return the smallest threshold with the highest accuracy with ties.

    The accuracy changes only at 0 (only equal scores are a tie) and at the absolute differences, so these are tried.

    Args:
        human: People's preferences, (N,): 1 left, -1 right, 0 tie.
        difference: Scores of the left edits minus scores of the right ones, (N,). Pairs with NaN are left out.

    Returns:
        The threshold, at least 0; 0 without any pair.
    """
    answered = ~np.isnan(difference)
    human, difference = human[answered], difference[answered]
    size = np.abs(difference)
    order = np.argsort(size, kind="stable")
    tied = np.concatenate([[0], np.cumsum(human[order] == 0)])
    ordered = np.concatenate([[0], np.cumsum(human[order] * difference[order] > 0)])
    thresholds = np.unique(np.append(size, 0.0))
    inside = np.searchsorted(size[order], thresholds, side="right")
    right = tied[inside] + ordered[-1] - ordered[inside]
    return float(thresholds[right.argmax()])


def held_out_thresholds(
    human: Floats,
    difference: Floats,
    clusters: NDArray[np.int64],
    fits: NDArray[np.bool_],
    *,
    seed: int,
    folds: int = 5,
) -> tuple[Floats, Floats] | None:
    """Return for each pair the best threshold of the pairs in other folds.

    Args:
        human: People's preferences, (N,): 1 left, -1 right, 0 tie.
        difference: Scores of the left edits minus scores of the right ones, (N,); NaN where missing.
        clusters: Cluster numbers, (N,), at least 0. All pairs of a cluster are in one fold.
        fits: Pairs that thresholds are fitted to, (N,).
        seed: Seed of the assignment of clusters to folds.
        folds: Number of folds; at most one for each cluster with pairs in `fits`.

    Returns:
        The thresholds of the pairs, (N,), and those of the folds, (folds,). None if `fits` has pairs of fewer than two
        clusters.
    """
    names = np.unique(clusters[fits])
    if len(names) < 2:
        return None
    folds = min(folds, len(names))
    shuffled = np.random.default_rng(seed).permutation(names)
    fold = np.zeros(int(clusters.max()) + 1, dtype=np.int64)
    fold[shuffled] = np.arange(len(shuffled)) % folds
    thresholds = np.array(
        [
            best_threshold(human[use], difference[use])
            for use in (fits & (fold[clusters] != held_out_fold) for held_out_fold in range(folds))
        ]
    )
    return thresholds[fold[clusters]], thresholds

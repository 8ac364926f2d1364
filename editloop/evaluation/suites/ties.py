"""Pairs that people and a judge order or leave open: what became of each, and the threshold of a tie. Pure functions.

Accuracy with ties (arXiv 2305.14324): right orders and shared ties over all pairs; a judge's scores are a tie where
they differ by no more than a threshold.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


class PairOutcome(IntEnum):
    """What became of a pair; later ones decide over earlier ones where several pairs are one unit."""

    RIGHT = 0
    """People and judge prefer the same edit."""
    BOTH_TIES = 1
    """Neither prefers one, in the same words where the words differ."""
    OTHER_TIE = 2
    """Neither prefers one, but one says that both are bad and the other that both are good."""
    HUMAN_TIE = 3
    """The judge prefers one where people do not."""
    MODEL_TIE = 4
    """People prefer one where the judge does not."""
    WRONG = 5
    """They prefer different ones."""
    MISSING = 6
    """The judge gave no answer."""


def pair_outcomes(human: Floats, judge: Floats) -> Codes:
    """What became of N pairs, (N,): each side is 1 (left), -1 (right) or 0 (tie), the judge's NaN where missing."""
    codes = np.full(len(human), PairOutcome.WRONG, dtype=np.int64)
    codes[(human != 0) & (judge == human)] = PairOutcome.RIGHT
    codes[(human == 0) & (judge == 0)] = PairOutcome.BOTH_TIES
    codes[(human == 0) & (judge != 0)] = PairOutcome.HUMAN_TIE
    codes[(human != 0) & (judge == 0)] = PairOutcome.MODEL_TIE
    codes[np.isnan(judge)] = PairOutcome.MISSING
    return codes


def preference_signs(difference: Floats, threshold: Floats | float) -> Floats:
    """Score differences left - right as 1, -1 or, up to the threshold, 0; NaN stays. (N,)."""
    signs = np.where(np.abs(difference) <= threshold, 0.0, np.sign(difference))
    return np.asarray(np.where(np.isnan(difference), np.nan, signs))


def best_threshold(human: Floats, difference: Floats) -> float:
    """The least threshold >= 0 with the highest accuracy with ties; pairs without an answer (NaN) are left out.

    0 (only equal scores tie) and the absolute differences themselves are all that can matter. 0 without any pair.
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
    """For each of N pairs the best threshold of the pairs in other folds, (N,), and the folds' thresholds, (folds,).

    clusters: (N,), numbers; a cluster lies in one fold whole. fits: (N,), the pairs that a threshold is chosen by. None
    with fewer than two clusters of such pairs.
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

"""Counts the pairs of one task's edits that a judge puts into the oracle's order."""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from editloop.evaluation.suites.team import CLEAR_GAP


def count_ordered(
    scores: Float[NDArray[np.floating], " K"],
    truth: Float[NDArray[np.floating], " K"],
    counted: Bool[NDArray[np.bool_], "K K"] | None = None,
) -> tuple[int, int]:
    """Return the number of clear pairs that the scores put into the oracle's order, and the number of clear pairs.

    A pair is clear if its oracle scores differ by more than CLEAR_GAP. A tie or a missing score (NaN) is no order.

    Args:
        scores: The judge's scores.
        truth: The oracle's scores, 0..1.
        counted: Which pairs count, symmetric; None: all of them.
    """
    better = truth[:, None] - truth[None] > CLEAR_GAP
    if counted is not None:
        better &= counted
    return int((better & (scores[:, None] > scores[None])).sum()), int(better.sum())


def axes_disagree(
    following: Float[NDArray[np.floating], " K"], quality: Float[NDArray[np.floating], " K"]
) -> Bool[NDArray[np.bool_], "K K"]:
    """Return the pairs of which one edit follows the instruction better and the other looks better.

    Each difference must exceed CLEAR_GAP.

    Args:
        following: The oracle's instruction following, 0..1.
        quality: The oracle's visual quality, 0..1.
    """
    gain, loss = following[:, None] - following[None], quality[None] - quality[:, None]
    disagree = (gain > CLEAR_GAP) & (loss > CLEAR_GAP)
    return np.asarray(disagree | disagree.T)

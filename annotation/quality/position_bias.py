"""Test for an effect of a candidate's position on the page on its rating.

The test is a permutation test: candidates are shown in random order.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class PositionEffect(NamedTuple):
    """Mean deviation of the ratings at each of P positions from their page's mean, and a test of it."""

    means: list[float]
    """(P,), in levels; 0 at positions without a rating."""
    log_p: float
    """Natural logarithm of the p-value of "the position does not matter"."""
    pages: int
    """Pages with two or more ratings."""


def position_effect(rating: Float, position: Int, page: Int) -> PositionEffect:
    """Measure and test the effect of the position on ratings.

    If the position does not matter, every order of a page's ratings is as likely as the observed one. The sums by
    position then have mean 0 and a known covariance, and their squared Mahalanobis distance approximately follows a
    chi-squared distribution (as in Friedman's test, but for pages of any number of candidates). The test is valid for
    a single annotator, whatever the others do.

    Args:
        rating: Ratings in levels, (n,).
        position: Position of each rated candidate on its page, from 0, (n,).
        page: Page number of each rating, from 0, (n,). A page has one order of candidates.

    Returns:
        The effect; without ratings its `means` are empty and `log_p` is 0.
    """
    from scipy.stats import chi2

    if len(rating) == 0:
        return PositionEffect([], 0.0, 0)
    size = np.bincount(page)
    residual = rating - (np.bincount(page, rating) / np.maximum(size, 1))[page]
    places, pages = int(position.max()) + 1, len(size)
    occupied = np.zeros((pages, places))
    occupied[page, position] = 1
    spread = np.bincount(page, residual**2) / np.maximum(size, 1)
    between = np.where(size > 1, spread / np.maximum(size - 1, 1), 0.0)
    covariance = np.diag((between * size) @ occupied) - (occupied * between[:, None]).T @ occupied
    sums = np.bincount(position, residual, minlength=places)
    means = [float(mean) for mean in sums / np.maximum(np.bincount(position, minlength=places), 1)]
    several = int((size > 1).sum())
    rank = int(np.linalg.matrix_rank(covariance, hermitian=True))
    if rank == 0:
        return PositionEffect(means, 0.0, several)
    distance = sums @ np.linalg.pinv(covariance, hermitian=True) @ sums
    return PositionEffect(means, float(chi2.logsf(distance, rank)), several)

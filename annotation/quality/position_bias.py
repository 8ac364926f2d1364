"""Does the place on the page move a rating? Tested by permutation: candidates were shown in random order."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class PositionEffect(NamedTuple):
    """How far ratings at each of P places lie from their page's mean."""

    means: list[float]
    """(P,), levels; places that nobody saw are 0."""
    log_p: float
    """Natural logarithm of the p-value of "place does not matter"."""
    pages: int
    """Pages with two candidates or more."""


def position_effect(rating: Float, position: Int, page: Int) -> PositionEffect:
    """All (n,): ratings, places from 0, page numbers from 0 (one order and one sitting each).

    If place does not matter, every order of a page's ratings is as likely as the one seen. The sums by place then have
    mean 0 and a known covariance, and their Mahalanobis distance follows chi-squared (as in Friedman's test, for pages
    of any number of candidates). Holds for a single annotator whatever the others do.
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

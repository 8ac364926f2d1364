"""Regressions that compare an annotator's ratings with those of the others on the same candidates.

All standard errors are clustered by page or task (sandwich estimator), because the candidates of one page are rated
together and are not independent.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Effects(NamedTuple):
    """F effects of A annotators, in levels of the scale, each relative to the median annotator."""

    values: Float
    """(A, F)"""
    errors: Float
    """(A, F): standard errors of the values."""


class Slope(NamedTuple):
    """Regression of one annotator's ratings on the mean of the others' ratings of the same candidates."""

    value: float
    """Slope, in levels per level of the others' mean: 1 = moves as they do, 0 = independent of them."""
    error: float
    """Standard error of `value`."""
    change: float
    """Change of the slope from the annotator's first page to the last."""
    change_error: float
    """Standard error of `change`."""
    residual: float
    """Standard deviation of the residuals, in levels."""


def joint_effects(rating: Float, item: Int, annotator: Int, features: Float, cluster: Int, annotators: int) -> Effects:
    """Fit rating = item + annotator effects . features by least squares, for all annotators at once.

    A joint fit keeps one annotator's bias from appearing as the opposite bias of those who rated the same items. The
    data determine effects only up to a constant that all annotators share, so they are given relative to the median
    annotator.

    Args:
        rating: Ratings in levels, (N,).
        item: Item number of each rating, from 0, (N,).
        annotator: Annotator number of each rating, from 0, (N,).
        features: Features of each rating, (N, F).
        cluster: Cluster number of each rating, from 0, (N,). All ratings of an item are in one cluster.
        annotators: Number of annotators, A.

    Returns:
        The effects and their standard errors, (A, F) each.
    """
    N, F = features.shape
    columns = (annotator[:, None] * F + np.arange(F)).ravel()
    X = csr_array((features.ravel(), (np.repeat(np.arange(N), F), columns)), shape=(N, annotators * F))
    Z = csr_array((np.ones(N), (np.arange(N), item)))
    share = diags_array(1 / np.maximum(Z.sum(axis=0), 1))
    ZX, Zy = (Z.T @ X).tocsr(), Z.T @ rating
    inverse = np.linalg.pinv((X.T @ X - ZX.T @ (share @ ZX)).toarray(), hermitian=True)
    estimate = inverse @ (X.T @ rating - ZX.T @ (share @ Zy))
    residual = rating - X @ estimate
    residual = residual - (Z @ (share @ (Z.T @ residual)))
    C = csr_array((residual, (cluster, np.arange(N))))
    scores = (C @ X).tocsr()
    clusters = max(2, scores.shape[0])
    covariance = inverse @ (scores.T @ scores).toarray() @ inverse * clusters / (clusters - 1)
    values = estimate.reshape(annotators, F)
    # The error of the difference from the others' mean approximates that of the difference from the median.
    against = np.eye(annotators) - (1 - np.eye(annotators)) / max(1, annotators - 1)
    contrast = np.kron(against, np.eye(F))
    errors = np.sqrt(np.maximum(np.diag(contrast @ covariance @ contrast.T), 0)).reshape(annotators, F)
    return Effects(values - np.median(values, axis=0), errors)


def others_mean(rating: Float, item: Int) -> Float:
    """Return the mean of the other ratings of the same item.

    Args:
        rating: Ratings in levels, (N,).
        item: Item number of each rating, from 0, (N,).

    Returns:
        The means, (N,); NaN where an item has only one rating.
    """
    total, count = np.bincount(item, rating), np.bincount(item)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count[item] > 1, (total[item] - rating) / (count[item] - 1), np.nan)


def slope(rating: Float, others: Float, time: Float, page: Int) -> Slope:
    """Regress one annotator's ratings on the others' mean.

    Args:
        rating: The annotator's ratings in levels, (n,).
        others: Mean of the others' ratings of the same candidates, (n,).
        time: Time of each rating, from -0.5 (the annotator's first page) to 0.5 (the last), (n,).
        page: Page number of each rating, from 0, (n,); standard errors are clustered by page.

    Returns:
        The slope, its change over time, and the residual spread.
    """
    centred = others - others.mean()
    plain, error, residual = _least_squares(np.stack([np.ones_like(rating), centred], axis=1), rating, page)
    moving, moving_error, _ = _least_squares(
        np.stack([np.ones_like(rating), centred, time, centred * time], axis=1), rating, page
    )
    return Slope(plain[1], error[1], moving[3], moving_error[3], residual)


def _least_squares(X: Float, y: Float, cluster: Int) -> tuple[list[float], list[float], float]:
    """Return coefficients, their clustered standard errors, and the residual standard deviation."""
    inverse = np.linalg.pinv(X.T @ X, hermitian=True)
    estimate = inverse @ X.T @ y
    residual = y - X @ estimate
    scores = np.zeros((int(cluster.max()) + 1, X.shape[1]))
    np.add.at(scores, cluster, X * residual[:, None])
    clusters = max(2, len(scores))
    covariance = inverse @ scores.T @ scores @ inverse * clusters / (clusters - 1)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return [float(number) for number in estimate], [float(number) for number in errors], float(residual.std())

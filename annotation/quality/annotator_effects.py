"""What sets an annotator apart from the others who rated the same candidates: how their ratings lie and how they move.

All errors allow for the candidates of one page being rated in one sitting (sandwich estimator, clusters are pages or
tasks).
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Effects(NamedTuple):
    """A annotators' F effects in levels of the scale, each against the middle (median) annotator."""

    values: Float
    """(A, F)"""
    errors: Float
    """(A, F): standard errors."""


class Slope(NamedTuple):
    """How one annotator's ratings move with the others' mean of the same candidates."""

    value: float
    """Levels a level: 1 = moves as the others do, 0 = whatever they say."""
    error: float
    change: float
    """From the annotator's first page to the last."""
    change_error: float
    residual: float
    """Standard deviation of what the line leaves, levels."""


def joint_effects(rating: Float, item: Int, annotator: Int, features: Float, cluster: Int, annotators: int) -> Effects:
    """Least squares of rating = item + annotator's effects . features, all annotators at once.

    rating, item, annotator, cluster: (N,), numbers from 0; items lie within clusters; features: (N, F). As all are
    fitted together, somebody's bias does not appear as the opposite bias of those who rated the same items. Effects are
    determined up to what all share, hence against the median annotator.
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
    # The error of an annotator's distance from the others' mean stands for that from their median.
    against = np.eye(annotators) - (1 - np.eye(annotators)) / max(1, annotators - 1)
    contrast = np.kron(against, np.eye(F))
    errors = np.sqrt(np.maximum(np.diag(contrast @ covariance @ contrast.T), 0)).reshape(annotators, F)
    return Effects(values - np.median(values, axis=0), errors)


def others_mean(rating: Float, item: Int) -> Float:
    """(N,): the mean of the other ratings of the same item; NaN where there is none."""
    total, count = np.bincount(item, rating), np.bincount(item)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(count[item] > 1, (total[item] - rating) / (count[item] - 1), np.nan)


def slope(rating: Float, others: Float, time: Float, page: Int) -> Slope:
    """One annotator's ratings on the others' mean; all (n,), `time` runs from -0.5 to 0.5, `page` numbers from 0."""
    centred = others - others.mean()
    plain, error, residual = _least_squares(np.stack([np.ones_like(rating), centred], axis=1), rating, page)
    moving, moving_error, _ = _least_squares(
        np.stack([np.ones_like(rating), centred, time, centred * time], axis=1), rating, page
    )
    return Slope(plain[1], error[1], moving[3], moving_error[3], residual)


def _least_squares(X: Float, y: Float, cluster: Int) -> tuple[list[float], list[float], float]:
    """Coefficients, their clustered standard errors, and the residual standard deviation."""
    inverse = np.linalg.pinv(X.T @ X, hermitian=True)
    estimate = inverse @ X.T @ y
    residual = y - X @ estimate
    scores = np.zeros((int(cluster.max()) + 1, X.shape[1]))
    np.add.at(scores, cluster, X * residual[:, None])
    clusters = max(2, len(scores))
    covariance = inverse @ scores.T @ scores @ inverse * clusters / (clusters - 1)
    errors = np.sqrt(np.maximum(np.diag(covariance), 0))
    return [float(number) for number in estimate], [float(number) for number in errors], float(residual.std())

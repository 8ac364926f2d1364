"""Intervals by resampling whole clusters: pairs and edits of one task are not independent.

A resample is a vector of how often each cluster was drawn, so that all figures of all slices of a resample are one
matrix product: 10,000 resamples of 3,000 units in 20 slices take about a second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Drawn clusters held in memory, 8 bytes each."""


class Resampled(NamedTuple):
    """Ratios of S figures: as measured, and as resampled."""

    values: NDArray[np.float64]
    """(S,), NaN where nothing was counted."""
    draws: NDArray[np.float64]
    """(resamples, S), NaN in a resample that happens to count nothing."""
    clusters: NDArray[np.int64]
    """(S,): how many clusters each figure rests on."""


def resampled_ratios(
    hits: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> Resampled:
    """sum(hits) / sum(counts) over clusters, and the same of resampled clusters.

    hits, counts: (clusters, S), counts >= 0, hits may be negative (differences). All figures see the same resamples.
    """
    clusters = len(hits)
    draws = np.full((resamples, hits.shape[1]), np.nan)
    rng = np.random.default_rng(seed)
    hits_and_counts = np.concatenate([hits, counts], axis=1)
    step = max(1, DRAWS_AT_ONCE // max(clusters, 1))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, clusters, (rows, clusters), dtype=np.int32)
        drawn += np.arange(rows, dtype=np.int32)[:, None] * clusters
        draw_counts = np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)
        above, below = np.split(draw_counts.astype(np.float64) @ hits_and_counts, 2, axis=1)
        np.divide(above, below, out=draws[start : start + rows], where=below > 0)
    total = counts.sum(axis=0)
    values = np.divide(hits.sum(axis=0), total, out=np.full(hits.shape[1], np.nan), where=total > 0)
    return Resampled(values, draws, (counts > 0).sum(axis=0))


def percentile_intervals(resampled: Resampled, level: float = LEVEL) -> NDArray[np.float64]:
    """Expanded percentile intervals of the figures, (S, 2); NaN where a figure rests on fewer than two clusters.

    The plain percentile interval of n clusters is too narrow by sqrt((n - 1) / n) and by the normal in place of
    Student's t: the quantiles are taken that much further out (T. Hesterberg, What Teachers Should Know About the
    Bootstrap, The American Statistician 69 (2015), 4.3).
    """
    ends = np.full((len(resampled.values), 2), np.nan)
    for index, clusters in enumerate(resampled.clusters):
        draws = resampled.draws[:, index]
        draws = draws[~np.isnan(draws)]
        if clusters >= 2 and len(draws):
            tail = expanded_tail((1 - level) / 2, int(clusters))
            ends[index] = np.quantile(draws, [tail, 1 - tail])
    return ends


def expanded_tail(tail: float, clusters: int) -> float:
    """The bootstrap quantile that holds `tail` of n clusters: Phi(sqrt(n / (n - 1)) t_{n-1}(tail))."""
    from scipy.stats import norm, t

    return float(norm.cdf(np.sqrt(clusters / (clusters - 1)) * t.ppf(tail, clusters - 1)))


def p_value_below(resampled: Resampled, bound: float) -> NDArray[np.float64]:
    """One-sided p of each figure being at least `bound`, against its being below: (S,), 1 where nothing is known.

    The tail of the resamples at or above the bound, read as `interval` reads tails, so that p < a says the same as an
    upper end of the (1 - 2a) interval below the bound.
    """
    from scipy.stats import norm, t

    chances = np.ones(len(resampled.values))
    for index, clusters in enumerate(resampled.clusters):
        draws = resampled.draws[:, index]
        draws = draws[~np.isnan(draws)]
        if clusters >= 2 and len(draws):
            share = (1 + (draws >= bound).sum()) / (len(draws) + 1)
            chances[index] = t.cdf(norm.ppf(share) * np.sqrt((clusters - 1) / clusters), clusters - 1)
    return np.nan_to_num(chances, nan=1.0)


def sum_by_cluster(
    values: NDArray[np.float64], counts: NDArray[np.float64], clusters: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums over the units of each cluster. values, counts: (N, S); returns two of (clusters, S)."""
    names, cluster_index = np.unique(np.asarray(clusters), return_inverse=True)
    totals = np.zeros((2, len(names), values.shape[1]))
    for total, units in zip(totals, (values, counts), strict=True):
        np.add.at(total, cluster_index, units)
    return totals[0], totals[1]


def ratio_interval(
    hits: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """sum(hits) / sum(counts) over clusters, with its 95 % interval. hits, counts: (clusters,)."""
    if not counts.sum() > 0:
        return float("nan"), float("nan"), float("nan")
    resampled = resampled_ratios(hits[:, None], counts[:, None], seed=seed, resamples=resamples)
    low, high = percentile_intervals(resampled)[0]
    return float(resampled.values[0]), float(low), float(high)

"""Bootstrap intervals that resample whole clusters, because pairs and edits of one task are not independent.

A resample is a vector of how often each cluster was drawn, so one matrix product gives all figures of all slices:
10,000 resamples of 3,000 units in 20 slices take about a second.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Drawn clusters in memory at once, 8 bytes each."""


class Resampled(NamedTuple):
    """S ratios, as measured and as resampled."""

    values: Float[NDArray[np.float64], " S"]
    """NaN where the counts are 0."""
    draws: Float[NDArray[np.float64], "resamples S"]
    """NaN in a resample whose counts are 0."""
    clusters: Int[NDArray[np.int64], " S"]
    """Number of clusters with counts above 0."""


def resampled_ratios(
    hits: Float[NDArray[np.float64], "clusters S"],
    counts: Float[NDArray[np.float64], "clusters S"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Resampled:
    """Return sum(hits) / sum(counts) over all clusters, and over resampled clusters.

    Args:
        hits: Numerators. May be negative (differences).
        counts: Denominators, at least 0.
        seed: Seed of the resampling. All S figures see the same resamples.
        resamples: Number of resamples.
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
    total: NDArray[np.float64] = counts.sum(axis=0)
    values: NDArray[np.float64] = np.divide(
        hits.sum(axis=0), total, out=np.full(hits.shape[1], np.nan), where=total > 0
    )
    return Resampled(values, draws, (counts > 0).sum(axis=0))


def percentile_intervals(resampled: Resampled, level: float = LEVEL) -> Float[NDArray[np.float64], "S 2"]:
    """Return expanded percentile intervals of the figures.

    The plain percentile interval of n clusters is too narrow, by a factor sqrt((n - 1) / n) and because it uses the
    normal distribution instead of Student's t. Quantiles further out correct for both (T. Hesterberg, What Teachers
    Should Know About the Bootstrap, The American Statistician 69 (2015), 4.3).

    Args:
        resampled: The figures.
        level: Coverage of the intervals, 0..1.

    Returns:
        Lower and upper ends. NaN where a figure rests on fewer than two clusters.
    """
    ends = np.full((len(resampled.values), 2), np.nan)
    for index in range(len(resampled.values)):
        clusters = int(resampled.clusters[index])
        draws = resampled.draws[:, index]
        draws = draws[~np.isnan(draws)]
        if clusters >= 2 and len(draws):
            tail = expanded_tail((1 - level) / 2, clusters)
            ends[index] = np.quantile(draws, [tail, 1 - tail])
    return ends


def expanded_tail(tail: float, clusters: int) -> float:
    """Return the bootstrap quantile for a tail probability: Phi(sqrt(n / (n - 1)) t_{n-1}(tail)) for n clusters.

    Args:
        tail: Nominal tail probability, 0..1.
        clusters: Number of clusters, at least 2.
    """
    from scipy.stats import norm, t

    return float(norm.cdf(math.sqrt(clusters / (clusters - 1)) * t.ppf(tail, clusters - 1)))


def p_value_below(resampled: Resampled, bound: float) -> Float[NDArray[np.float64], " S"]:
    """Return the one-sided p-value of each figure being at least `bound`, against its being below.

    It is the share of resamples at or above the bound, corrected as `percentile_intervals` corrects its tails. So p < a
    holds where the upper end of the (1 - 2a) interval is below the bound.

    Args:
        resampled: The figures.
        bound: The bound.

    Returns:
        0..1; 1 where a figure rests on fewer than two clusters.
    """
    from scipy.stats import norm, t

    chances = np.ones(len(resampled.values))
    for index in range(len(resampled.values)):
        clusters = int(resampled.clusters[index])
        draws = resampled.draws[:, index]
        draws = draws[~np.isnan(draws)]
        if clusters >= 2 and len(draws):
            share = (1 + np.count_nonzero(draws >= bound)) / (len(draws) + 1)
            chances[index] = t.cdf(norm.ppf(share) * math.sqrt((clusters - 1) / clusters), clusters - 1)
    return np.nan_to_num(chances, nan=1.0)


def sum_by_cluster(
    values: Float[NDArray[np.float64], "N S"], counts: Float[NDArray[np.float64], "N S"], clusters: Sequence[str]
) -> tuple[Float[NDArray[np.float64], "clusters S"], Float[NDArray[np.float64], "clusters S"]]:
    """Sum the units of each cluster.

    Args:
        values: Numerators of each unit.
        counts: Denominators of each unit.
        clusters: The cluster of each unit.

    Returns:
        The sums of values and of counts, in the sorted order of the clusters.
    """
    names, cluster_index = np.unique(np.asarray(clusters), return_inverse=True)
    sums, counted = np.zeros((len(names), values.shape[1])), np.zeros((len(names), values.shape[1]))
    np.add.at(sums, cluster_index, values)
    np.add.at(counted, cluster_index, counts)
    return sums, counted


def ratio_interval(
    hits: Float[NDArray[np.float64], " clusters"],
    counts: Float[NDArray[np.float64], " clusters"],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> tuple[float, float, float]:
    """Return sum(hits) / sum(counts) over clusters, with its 95 % interval.

    Args:
        hits: Numerators.
        counts: Denominators, at least 0.
        seed: Seed of the resampling.
        resamples: Number of resamples.

    Returns:
        The ratio and the interval's lower and upper end. All NaN where the counts sum to 0; the ends are NaN with fewer
        than two clusters.
    """
    if not float(counts.sum()) > 0:
        return float("nan"), float("nan"), float("nan")
    resampled = resampled_ratios(hits[:, None], counts[:, None], seed=seed, resamples=resamples)
    ends = percentile_intervals(resampled)
    return float(resampled.values[0]), float(ends[0, 0]), float(ends[0, 1])

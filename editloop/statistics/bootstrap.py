"""Bootstrap intervals that resample whole clusters, because pairs and edits of one task are not independent.

A resample is a vector of how often each cluster was drawn, so one matrix product gives all figures of all slices:
10,000 resamples of 3,000 units in 20 slices take about a second.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
DRAWS_AT_ONCE = 1_000_000
"""Drawn clusters in memory at once, 8 bytes each."""
Figures: TypeAlias = NDArray[np.float64]


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
    hits_and_counts: Figures = np.concatenate([hits, counts], axis=1)
    blocks = draw_counts(clusters, resamples, DRAWS_AT_ONCE // max(clusters, 1), seed=seed)
    sums: Figures = np.concatenate([block @ hits_and_counts for block in blocks])
    above, below = sums[:, : hits.shape[1]], sums[:, hits.shape[1] :]
    measured: NDArray[np.int64] = (counts > 0).sum(axis=0)
    return Resampled(_ratios(hits.sum(axis=0), counts.sum(axis=0)), _ratios(above, below), measured)


def draw_counts(
    clusters: int, resamples: int, at_once: int, *, seed: int
) -> Iterator[Float[NDArray[np.float64], "R clusters"]]:
    """Yield how often each cluster is drawn, over resamples with replacement, in blocks of R resamples.

    Args:
        clusters: Number of clusters.
        resamples: Number of resamples.
        at_once: Most resamples in a block; a smaller number than 1 counts as 1. The draws do not depend on it.
        seed: Seed of the resampling.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, max(1, at_once)):
        R = min(max(1, at_once), resamples - start)
        drawn = rng.integers(0, clusters, (R, clusters), dtype=np.int32)
        drawn += np.arange(R, dtype=np.int32)[:, None] * clusters
        yield np.bincount(drawn.ravel(), minlength=R * clusters).reshape(R, clusters).astype(np.float64)


def _ratios(
    numerators: Float[NDArray[np.float64], "*shape"], denominators: Float[NDArray[np.float64], "*shape"]
) -> Float[NDArray[np.float64], "*shape"]:
    """Ratios, NaN where the denominator is 0."""
    unmeasured: Figures = np.full(numerators.shape, np.nan)
    ratios: NDArray[np.float64] = np.divide(numerators, denominators, out=unmeasured, where=denominators > 0)
    return ratios


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
    columns: list[Figures] = list(resampled.draws.T)
    clusters: list[int] = resampled.clusters.tolist()
    figures = zip(columns, clusters, strict=True)
    ends = [percentile_interval(draws, count, level) or [math.nan, math.nan] for draws, count in figures]
    return np.array(ends, dtype=np.float64).reshape(-1, 2)


def percentile_interval(
    draws: Float[NDArray[np.float64], " resamples"], clusters: int, level: float = LEVEL
) -> list[float] | None:
    """Return the interval of one figure, as `percentile_intervals` does.

    Args:
        draws: The figure in each resample; NaN where it has no value.
        clusters: Number of clusters that the figure rests on.
        level: Coverage of the interval, 0..1.

    Returns:
        [low, high]; None with fewer than two clusters, or where no resample has a value.
    """
    draws = draws[~np.isnan(draws)]
    if clusters < 2 or not len(draws):
        return None
    tail = expanded_tail((1 - level) / 2, clusters)
    return [float(end) for end in np.quantile(draws, [tail, 1 - tail])]


def finite_mean(values: Float[NDArray[np.float64], "..."], axis: int) -> Float[NDArray[np.float64], "..."]:
    """Return the mean along an axis over the values that are not NaN; NaN where there are none.

    Args:
        values: The values.
        axis: The axis.
    """
    counts: NDArray[np.int64] = (~np.isnan(values)).sum(axis=axis)
    sums: Figures = np.nansum(values, axis=axis)
    return np.asarray(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), dtype=np.float64)


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

    measured: NDArray[np.int64] = (~np.isnan(resampled.draws)).sum(axis=0)
    above: NDArray[np.int64] = (resampled.draws >= bound).sum(axis=0)
    share: Figures = (1 + above) / (measured + 1)
    clusters = np.maximum(resampled.clusters, 2)
    chances: Figures = np.asarray(t.cdf(norm.ppf(share) * np.sqrt((clusters - 1) / clusters), clusters - 1))
    return np.where((resampled.clusters >= 2) & (measured > 0), np.nan_to_num(chances, nan=1.0), 1.0)


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

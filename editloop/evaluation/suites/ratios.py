"""Many ratios over units, each with its interval, from one set of resamples of whole clusters."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.statistics.bootstrap import Resampled, percentile_intervals, resampled_ratios, sum_by_cluster

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


class RatioEstimate(NamedTuple):
    value: float | None
    """None where nothing was counted."""
    ci95: list[float] | None
    """None where it rests on fewer than two clusters."""


class Ratios:
    """Columns of hits and counts over N units; all see the same resamples."""

    def __init__(self, clusters: Sequence[str]):
        self._clusters = clusters
        self._hits: dict[str, Floats] = {}
        self._counts: dict[str, Floats] = {}
        self._found: Resampled | None = None

    def add(self, name: str, hits: Floats, counts: Floats) -> None:
        """A ratio sum(hits) / sum(counts). hits, counts: (N,)."""
        self._hits[name], self._counts[name] = hits * 1.0, counts * 1.0

    def resample(self, seed: int) -> None:
        """Compute all of them."""
        hits, counts = (np.stack(list(columns.values()), axis=1) for columns in (self._hits, self._counts))
        self._found = resampled_ratios(*sum_by_cluster(hits, counts, self._clusters), seed=seed)

    def figure(self, name: str) -> RatioEstimate:
        """One ratio."""
        return self.mean([name])

    def mean(self, names: Sequence[str]) -> RatioEstimate:
        """The unweighted mean of some ratios, those that count nothing left out."""
        assert self._found is not None
        columns = list(self._hits)
        indices = [columns.index(name) for name in names if self._counts[name].sum() > 0]
        if not indices:
            return RatioEstimate(None, None)
        draws = self._found.draws[:, indices]
        finite = ~np.isnan(draws)
        totals = finite.sum(axis=1)
        means = np.divide(np.nansum(draws, axis=1), totals, out=np.full(len(draws), np.nan), where=totals > 0)
        counted = np.sum([self._counts[columns[index]] for index in indices], axis=0) > 0
        clusters = len(np.unique(np.asarray(self._clusters)[counted]))
        value = float(self._found.values[indices].mean())
        low, high = percentile_intervals(Resampled(np.array([value]), means[:, None], np.array([clusters])))[0]
        return RatioEstimate(value, None if np.isnan(low) else [float(low), float(high)])

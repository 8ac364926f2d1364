"""Ratios over units with confidence intervals, all from one set of resamples of whole clusters."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.statistics.bootstrap import Resampled, finite_mean, percentile_interval, resampled_ratios, sum_by_cluster

Floats = NDArray[np.float64]


class RatioEstimate(NamedTuple):
    """A ratio, or a mean of ratios, with its 95 % interval."""

    value: float | None
    """None if nothing was counted."""
    ci95: list[float] | None
    """[low, high]; None if fewer than two clusters count."""


class Ratios:
    """Named ratios over N units, which all use the same resamples. Call `add` for each, then `resample`, then read."""

    def __init__(self, clusters: Sequence[str]):
        """Start without ratios.

        Args:
            clusters: Clusters of the N units.
        """
        self._clusters = clusters
        self._hits: dict[str, Floats] = {}
        self._counts: dict[str, Floats] = {}
        self._found: Resampled | None = None

    def add(self, name: str, hits: Floats, counts: Floats) -> None:
        """Add the ratio sum(hits) / sum(counts).

        Args:
            name: Name to read it by.
            hits: Numerators, (N,).
            counts: Denominators, (N,), at least 0.
        """
        self._hits[name], self._counts[name] = hits * 1.0, counts * 1.0

    def resample(self, seed: int) -> None:
        """Compute all ratios that were added, as measured and in each resample.

        Args:
            seed: Seed of the resampling.
        """
        hits, counts = (np.stack(list(columns.values()), axis=1) for columns in (self._hits, self._counts))
        self._found = resampled_ratios(*sum_by_cluster(hits, counts, self._clusters), seed=seed)

    def figure(self, name: str) -> RatioEstimate:
        """Return one ratio. Call `resample` first.

        Args:
            name: Name of the ratio.
        """
        return self.mean([name])

    def mean(self, names: Sequence[str]) -> RatioEstimate:
        """Return the unweighted mean of some ratios. Call `resample` first.

        Args:
            names: Names of the ratios. Those whose counts sum to 0 are left out.
        """
        assert self._found is not None
        columns = list(self._hits)
        indices = [columns.index(name) for name in names if self._counts[name].sum() > 0]
        if not indices:
            return RatioEstimate(None, None)
        means = finite_mean(self._found.draws[:, indices], 1)
        counted = np.sum([self._counts[columns[index]] for index in indices], axis=0) > 0
        clusters = len(np.unique(np.asarray(self._clusters)[counted]))
        return RatioEstimate(float(self._found.values[indices].mean()), percentile_interval(means, clusters))

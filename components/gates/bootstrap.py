"""Intervals by resampling whole tasks: pairs and edits of one task are not independent."""

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


def ratio_interval(
    hits: NDArray[np.float64], counts: NDArray[np.float64], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[float, float, float]:
    """sum(hits) / sum(counts) over tasks, with the 95 % percentile interval over resampled tasks.

    hits, counts: (tasks,), counts >= 0, hits may be negative (differences). Returns (value, low, high); three NaN where
    nothing was counted.
    """
    if counts.sum() == 0:
        return float("nan"), float("nan"), float("nan")
    draws = np.random.default_rng(seed).integers(0, len(hits), (resamples, len(hits)))
    totals = counts[draws].sum(1)
    ratios = hits[draws].sum(1)[totals > 0] / totals[totals > 0]
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(hits.sum() / counts.sum()), float(low), float(high)

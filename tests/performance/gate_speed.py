"""What a gate's statistics cost: the intervals of all slices, from one set of resamples."""

import time

import numpy as np
from numpy.typing import NDArray

from editloop.statistics.bootstrap import percentile_intervals, resampled_ratios
from tests.performance.bench import Scale, peak_megabytes

PAIRS, SLICES, RESAMPLES = 3000, 20, 10_000


def changes() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Changes of PAIRS pairs, each in the whole and in one of SLICES slices, (PAIRS, 1 + SLICES), and who counts."""
    rng = np.random.default_rng(0)
    change = rng.choice([-1.0, 0.0, 1.0], size=PAIRS, p=[0.1, 0.75, 0.15])
    inside = np.concatenate([np.ones((PAIRS, 1)), np.eye(SLICES)[rng.integers(0, SLICES, PAIRS)]], axis=1)
    return change[:, None] * inside, inside


def bootstrap_limit() -> Scale:
    """10,000 resamples of 3,000 pairs x 20 slices."""

    def run() -> dict[str, float]:
        hits, counts = changes()
        start = time.perf_counter()
        ends = percentile_intervals(resampled_ratios(hits, counts, resamples=RESAMPLES))
        seconds = time.perf_counter() - start
        assert np.isfinite(ends).all()
        return {"seconds": seconds, "megabytes": peak_megabytes()}

    return Scale("bootstrap: 10,000 resamples of 3,000 pairs in 20 slices", run, 2.0, 2000.0)

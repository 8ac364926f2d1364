"""Holm's correction for several hypotheses (S. Holm, Scand. J. Statist. 6 (1979) 65-70)."""

import numpy as np
from numpy.typing import NDArray


def holm(log_p: NDArray[np.float64], level: float) -> NDArray[np.bool_]:
    """Which of the hypotheses fall, the chance of any wrong one being `level` at most; (m,) to (m,)."""
    order = np.argsort(log_p, kind="stable")
    stands = log_p[order] > np.log(level) - np.log(len(log_p) - np.arange(len(log_p)))
    fallen = np.zeros(len(log_p), dtype=bool)
    fallen[order] = ~np.maximum.accumulate(stands)
    return fallen

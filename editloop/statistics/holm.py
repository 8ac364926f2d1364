"""Holm's correction for several hypotheses (S. Holm, Scand. J. Statist. 6 (1979) 65-70)."""

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray


def holm(log_p: Float[NDArray[np.float64], " m"], level: float) -> Bool[NDArray[np.bool_], " m"]:
    """Return which hypotheses are rejected. The chance of any wrong rejection is at most `level`.

    Args:
        log_p: Natural logarithms of the p-values.
        level: Familywise error rate, 0..1.

    Returns:
        True where the hypothesis is rejected.
    """
    order = np.argsort(log_p, kind="stable")
    stands = log_p[order] > np.log(level) - np.log(len(log_p) - np.arange(len(log_p)))
    fallen = np.zeros(len(log_p), dtype=bool)
    fallen[order] = ~np.maximum.accumulate(stands)
    return fallen

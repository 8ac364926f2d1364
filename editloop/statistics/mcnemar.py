"""McNemar's test: whether two judges differ on the same units, from the units that only one of them got right."""

import numpy as np
from numpy.typing import NDArray


def discordant_counts(new: NDArray[np.float64], old: NDArray[np.float64]) -> tuple[int, int]:
    """How many units only the new judge got right, and only the old one. new, old: (N,), each 0 or 1."""
    return int(((new == 1) & (old == 0)).sum()), int(((new == 0) & (old == 1)).sum())


def mcnemar(new: NDArray[np.float64], old: NDArray[np.float64]) -> float | None:
    """Exact one-sided p of the new judge being no better than the old one, 0..1; None where a unit is half right.

    Under equality each unit that only one gets right is a coin's throw (Q. McNemar, Psychometrika 12 (1947) 153-157;
    exact: the binomial in place of chi squared). Units count as independent here.
    """
    from scipy.stats import binom

    if not (np.isin(new, (0, 1)).all() and np.isin(old, (0, 1)).all()):
        return None
    gained, lost = discordant_counts(new, old)
    return float(binom.sf(gained - 1, gained + lost, 0.5)) if gained + lost else 1.0

"""McNemar's test: whether two judges differ on the same units, from the units that only one of them got right."""

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray


def discordant_counts(new: Float[NDArray[np.float64], " N"], old: Float[NDArray[np.float64], " N"]) -> tuple[int, int]:
    """Count the units that only one of two judges got right.

    Args:
        new: 1 where the new judge is right, 0 where it is wrong.
        old: The same of the old judge.

    Returns:
        How many only the new judge got right, and how many only the old one.
    """
    return int(((new == 1) & (old == 0)).sum()), int(((new == 0) & (old == 1)).sum())


def mcnemar(new: Float[NDArray[np.float64], " N"], old: Float[NDArray[np.float64], " N"]) -> float | None:
    """Return the exact one-sided p-value of the new judge being no better than the old one.

    If both are equally good, each unit that only one gets right is a fair coin toss (Q. McNemar, Psychometrika 12
    (1947) 153-157; exact: the binomial in place of chi squared). Units are treated as independent.

    Args:
        new: 1 where the new judge is right, 0 where it is wrong.
        old: The same of the old judge.

    Returns:
        0..1, and 1 where the judges differ on no unit. None where a value is neither 0 nor 1.
    """
    from scipy.stats import binom

    if not (np.isin(new, (0, 1)).all() and np.isin(old, (0, 1)).all()):
        return None
    gained, lost = discordant_counts(new, old)
    return float(binom.sf(gained - 1, gained + lost, 0.5)) if gained + lost else 1.0

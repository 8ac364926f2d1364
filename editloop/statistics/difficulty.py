"""How difficult each task of a campaign is, by how much its ratings scatter after annotators' habits are removed.

The model of one axis is rating = level of the candidate + bias of the annotator + s[annotator] * f[task] * noise: the
normal model of repeated measurements with a scale for each rater and each task. It differs from Dawid and Skene's, in
which every task is equally hard.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Integer
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES

ITERATIONS = 20
"""Of the fit. The order of tasks no longer changes after ten."""
PRIOR_RATINGS = 4.0
"""Ratings of a typical task that are added to each task's own, so that two ratings that happen to differ do not make a
task the hardest."""
LEAST_FREEDOM = 0.05
"""Smallest share of a rating that its candidate's level leaves free: a residual tells little where there are few."""

Values = NDArray[np.float64]


class Rated(NamedTuple):
    """N ratings of one axis, all numbered from 0 without gaps."""

    rating: Float[Values, " N"]
    item: Integer[NDArray[np.int64], " N"]
    annotator: Integer[NDArray[np.int64], " N"]
    task: Integer[NDArray[np.int64], " N"]


def task_difficulty(table: pd.DataFrame) -> dict[str, float]:
    """Return each task's difficulty, over both axes.

    Args:
        table: A `judgement_table`; its columns `task_id`, `annotator`, `item` and the axes are read.

    Returns:
        By task id: what the task multiplies the standard deviation of its ratings' noise by, relative to the typical
        task; 1 = typical, 2 = ratings scatter twice as much. Empty where nobody rated what somebody else rated.
    """
    if table.empty or not table["item"].duplicated().any():
        return {}
    task, names = pd.factorize(table["task_id"].astype(str))
    annotator, _ = pd.factorize(table["annotator"].astype(str))
    item = table["item"].to_numpy(np.int64)
    logs = [
        np.log(
            noise_factors(
                Rated(table[axis].to_numpy(np.float64), item, annotator.astype(np.int64), task.astype(np.int64))
            )
        )
        for axis in AXES
    ]
    factors: Values = np.exp(np.mean(logs, axis=0))
    return dict(zip(map(str, names), factors.tolist(), strict=True))


def noise_factors(rated: Rated) -> Float[Values, " tasks"]:
    """Fit the model by alternating weighted means and variances.

    Args:
        rated: The ratings.

    Returns:
        What each task multiplies the noise by; their geometric mean is 1.
    """
    rating, item, annotator, task = rated
    bias, spread = np.zeros(annotator.max() + 1), np.ones(annotator.max() + 1)
    variance = np.ones(task.max() + 1)
    for _ in range(ITERATIONS):
        weight = 1 / (spread[annotator] ** 2 * variance[task])
        total = np.bincount(item, weight)
        level = np.bincount(item, weight * (rating - bias[annotator])) / total
        bias = np.bincount(annotator, weight * (rating - level[item])) / np.bincount(annotator, weight)
        bias -= bias.mean()
        residual = (rating - level[item] - bias[annotator]) ** 2
        freedom = np.clip(1 - weight / total[item], LEAST_FREEDOM, 1)
        scaled = residual / freedom / variance[task]
        spread = np.sqrt((np.bincount(annotator, scaled) + 1) / (np.bincount(annotator) + 1))
        scatter = np.bincount(task, residual / spread[annotator] ** 2)
        variance = (scatter + PRIOR_RATINGS) / (np.bincount(task, freedom) + PRIOR_RATINGS)
        variance /= np.exp(np.log(variance).mean())
    factors: Values = np.sqrt(variance)
    return factors

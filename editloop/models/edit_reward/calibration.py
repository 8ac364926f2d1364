"""Raw scores onto the experts' scale: a strictly monotone map an axis, kept with the model.

A head's mu has no scale of its own (-3 to 2 is usual), which puzzles who reads it. An axis's map is
rating = 1 + 3 sigmoid(slope mu + offset), slope > 0: it keeps every order, and its range is that of the ratings, 1..4.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from editloop.models.edit_reward.settings import Calibration

LOWEST, HIGHEST = 1.0, 4.0
PRIOR_CANDIDATES = 10.0
"""How many candidates' worth of weight the map has that centres mu and brings it to spread 1: few labels move it
little."""


def rating_shares(calibration: Calibration, mu: Tensor) -> Tensor:
    """Where on the scale raw scores (N, axes) lie, 0 (lowest rating) to 1 (highest)."""
    return torch.sigmoid(mu * mu.new_tensor(calibration.slope) + mu.new_tensor(calibration.offset))


def calibrated_ratings(calibration: Calibration, mu: Tensor) -> Tensor:
    """Ratings 1..4 of raw scores (N, axes)."""
    return LOWEST + (HIGHEST - LOWEST) * rating_shares(calibration, mu)


def fit_calibration(mu: NDArray[np.floating], ratings: NDArray[np.floating]) -> Calibration:
    """Least squares of the map to rated candidates: mu and mean ratings 1..4, each (N, axes).

    A weak prior holds each axis to the map that centres its mu and divides by its spread.
    """
    slopes, offsets, errors = [], [], []
    for score, rating in zip(mu.T.astype(np.float64), ratings.T.astype(np.float64), strict=True):
        spread = max(float(score.std()), 1e-6)
        start = np.array([-np.log(spread), -score.mean() / spread])

        def misses(guess: NDArray[np.float64], score=score, rating=rating, start=start) -> NDArray[np.float64]:  # type: ignore[no-untyped-def]
            share = 1 / (1 + np.exp(-(np.exp(guess[0]) * score + guess[1])))
            return np.append(LOWEST + (HIGHEST - LOWEST) * share - rating, np.sqrt(PRIOR_CANDIDATES) * (guess - start))

        solution = least_squares(misses, start)
        slopes.append(float(np.exp(solution.x[0])))
        offsets.append(float(solution.x[1]))
        errors.append(float(np.sqrt(np.mean(misses(solution.x)[:-2] ** 2))))
    return Calibration(slope=tuple(slopes), offset=tuple(offsets), error=tuple(errors), candidates=len(mu))

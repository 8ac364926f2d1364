"""Calibrate raw scores to the experts' rating scale: one strictly monotone map per axis, stored with the model.

A head's mu has no natural scale (-3 to 2 is typical) and is hard to interpret. An axis's map is
rating = 1 + 3 sigmoid(slope mu + offset), slope > 0. It keeps every order, and its range is that of the ratings, 1..4.
"""

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.optimize import least_squares
from torch import Tensor

from editloop.models.edit_reward.settings import Calibration

LOWEST, HIGHEST = 1.0, 4.0
"""Range of the ratings."""
PRIOR_CANDIDATES = 10.0
"""Weight of the prior in `fit_calibration`, in candidates. The prior is the map that centres mu and divides it by its
standard deviation; it keeps a few labels from moving the map far."""


def rating_shares(calibration: Calibration, mu: Float[Tensor, "N axes"]) -> Float[Tensor, "N axes"]:
    """Return the position of raw scores on the rating scale: 0 (lowest rating) to 1 (highest).

    Args:
        calibration: The model's calibration.
        mu: Raw scores.
    """
    return torch.sigmoid(mu * mu.new_tensor(calibration.slope) + mu.new_tensor(calibration.offset))


def calibrated_ratings(calibration: Calibration, mu: Float[Tensor, "N axes"]) -> Float[Tensor, "N axes"]:
    """Return the ratings 1..4 of raw scores.

    Args:
        calibration: The model's calibration.
        mu: Raw scores.
    """
    return LOWEST + (HIGHEST - LOWEST) * rating_shares(calibration, mu)


def fit_calibration(
    mu: Float[NDArray[np.floating], "N axes"], ratings: Float[NDArray[np.floating], "N axes"]
) -> Calibration:
    """Fit the map of each axis to rated candidates, by least squares.

    A weak prior draws each axis to the map that centres its mu and divides it by its standard deviation.

    Args:
        mu: Raw scores.
        ratings: Mean ratings 1..4.

    Returns:
        The calibration, with its error on these candidates.
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

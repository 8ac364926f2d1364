"""Raw scores onto the experts' scale: a strictly monotone map an axis, kept with the model.

A head's mu has no scale of its own (-3 to 2 is usual), which puzzles who reads it. An axis's map is
rating = 1 + 3 sigmoid(slope mu + offset), slope > 0: it keeps every order, and its range is that of the ratings, 1..4.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import least_squares
from torch import Tensor

LOWEST, HIGHEST = 1.0, 4.0
PRIOR_CANDIDATES = 10.0
"""How many candidates' worth of weight the map has that centres mu and brings it to spread 1: few labels move it
little."""


class Calibration(BaseModel):
    """One map an axis."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: tuple[float, ...] = (1.0, 1.0)
    """Above 0."""
    offset: tuple[float, ...] = (0.0, 0.0)
    error: tuple[float, ...] | None = None
    """Root mean square error of the ratings it was fitted to, in rating steps; None where it was not fitted."""
    candidates: int = Field(0, ge=0)
    """How many rated candidates it was fitted to."""

    @model_validator(mode="after")
    def _monotone(self) -> "Calibration":
        if len(self.slope) != len(self.offset) or not all(value > 0 for value in self.slope):
            raise ValueError(f"slope {self.slope}, offset {self.offset}: one of each an axis, and slopes above 0")
        return self

    def shares(self, mu: Tensor) -> Tensor:
        """Where on the scale raw scores (N, axes) lie, 0 (lowest rating) to 1 (highest)."""
        return torch.sigmoid(mu * mu.new_tensor(self.slope) + mu.new_tensor(self.offset))

    def ratings(self, mu: Tensor) -> Tensor:
        """Ratings 1..4 of raw scores (N, axes)."""
        return LOWEST + (HIGHEST - LOWEST) * self.shares(mu)


def calibrate(mu: NDArray[np.floating], ratings: NDArray[np.floating]) -> Calibration:
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

        found = least_squares(misses, start)
        slopes.append(float(np.exp(found.x[0])))
        offsets.append(float(found.x[1]))
        errors.append(float(np.sqrt(np.mean(misses(found.x)[:-2] ** 2))))
    return Calibration(slope=tuple(slopes), offset=tuple(offsets), error=tuple(errors), candidates=len(mu))

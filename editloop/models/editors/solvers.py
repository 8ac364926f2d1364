"""Solvers of the probability-flow equation, one step at a time. Pure functions of latents and noise levels.

Noise levels (sigma) run from 1, noise, to 0, an image; x0 = x - sigma v is the image that a velocity v predicts.
"""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from editloop.models.editors.solver_names import SolverName

Latents = Float[Tensor, "B S C"]


class OdeSolver(Protocol):
    """A solver on its way along one trajectory of B edits."""

    def step(self, x: Latents, v: Latents, index: int) -> Latents:
        """Return the latents after a step. Steps are taken in order.

        Args:
            x: Latents before the step.
            v: Velocities there.
            index: Number of the step, from 0.
        """


class EulerSolver:
    """Euler steps x + (following - sigma) v, an `OdeSolver`."""

    def __init__(self, sigmas: Sequence[float]):
        """Begin a trajectory.

        Args:
            sigmas: Noise levels (steps + 1), falling.
        """
        self.sigmas = sigmas

    def step(self, x: Latents, v: Latents, index: int) -> Latents:
        return x + (self.sigmas[index + 1] - self.sigmas[index]) * v


class Dpm2Solver:
    """DPM-Solver++(2M) (arXiv 2211.01095) for flows, with midpoints, as DiffusionNFT samples; an `OdeSolver`.

    With lambda = log((1 - sigma) / sigma), a step goes along the line through this x0 and the one before. The first and
    the last step are of first order. So is the second where the first noise level is 1, because its lambda is infinite.
    """

    def __init__(self, sigmas: Sequence[float]):
        """Begin a trajectory.

        Args:
            sigmas: Noise levels (steps + 1), falling.
        """
        self.sigmas = sigmas
        self._before: Tensor | None = None

    def step(self, x: Latents, v: Latents, index: int) -> Latents:
        sigma, following = self.sigmas[index], self.sigmas[index + 1]
        image, before = x - sigma * v, self._before
        self._before = image
        if before is None or index == len(self.sigmas) - 2 or self.sigmas[index - 1] >= 1:
            return x + (following - sigma) * v
        length = _log_ratio(following) - _log_ratio(sigma)
        length_before = _log_ratio(sigma) - _log_ratio(self.sigmas[index - 1])
        ahead = image + (image - before) * (length / (2 * length_before))
        return (following / sigma) * x - (1 - following) * math.expm1(-length) * ahead


SOLVERS: dict[SolverName, Callable[[Sequence[float]], OdeSolver]] = {"euler": EulerSolver, "dpm2": Dpm2Solver}


def _log_ratio(sigma: float) -> float:
    """Return lambda, half the logarithm of the signal-to-noise ratio, of a noise level in 0..1, ends excluded."""
    return math.log((1 - sigma) / sigma)

"""Stochastic sampling steps of a flow model with their log-probabilities. All in fp32.

Convention: sigma runs from 1 (noise) to 0 (picture), delta = following - sigma < 0, v is the model's velocity.
Latents are
(B, S, C), sigmas scalars. Flow-SDE is Flow-GRPO's step (arXiv 2505.05470); CPS is coefficient-preserving sampling
(arXiv 2509.05952), which keeps the noise level of the picture what the schedule says.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Step = Callable[[Tensor, Tensor, float, float, float], tuple[Tensor, float]]


def flow_sde(x: Tensor, v: Tensor, sigma: float, following: float, noise: float) -> tuple[Tensor, float]:
    """Mean and standard deviation of the next latents under Flow-SDE at noise level `noise` (a in the papers).

    At sigma = 1, where the denominator would be zero, the following sigma stands in it.
    """
    delta = following - sigma
    s = noise * math.sqrt(sigma / (1 - (following if sigma >= 1 else sigma)))
    drift = s**2 / (2 * sigma)
    mean = x * (1 + drift * delta) + v * (1 + drift * (1 - sigma)) * delta
    return mean, s * math.sqrt(-delta)


def cps(x: Tensor, v: Tensor, sigma: float, following: float, noise: float) -> tuple[Tensor, float]:
    """Mean and standard deviation of the next latents under coefficient-preserving sampling, `noise` in 0..1."""
    s = following * math.sin(noise * math.pi / 2)
    picture, pure = x - sigma * v, x + (1 - sigma) * v
    return picture * (1 - following) + pure * math.sqrt(following**2 - s**2), s


STEPS: dict[str, Step] = {"flow-sde": flow_sde, "cps": cps}


def log_prob(sample: Tensor, mean: Tensor, deviation: float) -> Tensor:
    """Gaussian log-density of `sample`, averaged over all but the batch dimension: (B,)."""
    error = (sample - mean).square().flatten(1).mean(1)
    return -error / (2 * deviation**2) - math.log(deviation) - math.log(2 * math.pi) / 2


def divergence(mean: Tensor, reference: Tensor, deviation: float) -> Tensor:
    """KL of two Gaussians of one deviation, averaged over all but the batch dimension: (B,), >= 0."""
    return (mean - reference).square().flatten(1).mean(1) / (2 * deviation**2)


def draw(mean: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """A sample of N(mean, deviation^2), mean's shape."""
    return mean + deviation * torch.randn(mean.shape, generator=generator)

"""Stochastic sampling steps of a flow model with their log-probabilities.

Convention: sigma runs from 1 (noise) to 0 (image), and delta = following - sigma < 0. v is the model's velocity. x0 = x
- sigma v is the image that it predicts, x1 = x + (1 - sigma) v the noise. Latents are (B, S, C). A `Level` (a sigma, a
deviation) is a float, or a tensor with one value per row, (B,) or (B, 1, 1). Maths is fp32 whatever the latents' type.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

Latents: TypeAlias = Float[Tensor, "B S C"]
Level: TypeAlias = float | Float[Tensor, " B"] | Float[Tensor, "B 1 1"]
Step = Callable[[Latents, Latents, Level, Level, float], tuple[Latents, Level]]
"""Maps (x, v, sigma, following, noise) to the mean (B, S, C) and standard deviation of the next latents. The deviation
is a float where sigmas are, else (B, 1, 1). `noise` >= 0 is a (or eta) in the papers; at 0 the step is Euler's."""


def flow_sde(x: Latents, v: Latents, sigma: Level, following: Level, noise: float) -> tuple[Latents, Level]:
    """Flow-GRPO's step (arXiv 2505.05470): s = a sqrt(sigma / (1 - sigma)), deviation s sqrt(-delta).

    At sigma = 1, where the denominator would be 0, the following sigma replaces sigma in it.

    Args:
        x: Latents.
        v: The model's velocities at x.
        sigma: Noise level of x.
        following: Noise level after the step, below sigma.
        noise: a in the paper, at least 0.

    Returns:
        Mean and standard deviation of the next latents.
    """
    sigma, following = _rows(sigma, x), _rows(following, x)
    if isinstance(sigma, Tensor):
        within: Level = torch.where(sigma >= 1, following, sigma)
    else:
        within = following if sigma >= 1 else sigma
    return _euler_maruyama_step(x, v, sigma, following, noise * (sigma / (1 - within)) ** 0.5)


def dance_sde(x: Latents, v: Latents, sigma: Level, following: Level, noise: float) -> tuple[Latents, Level]:
    """DanceGRPO's step (arXiv 2505.07818): the same noise eta at every sigma, deviation eta sqrt(-delta).

    Its drift eta^2 (x - x0 (1 - sigma)) / (2 sigma^2) equals eta^2 x1 / (2 sigma), which is Flow-SDE's with s = eta.

    Args:
        x: Latents.
        v: The model's velocities at x.
        sigma: Noise level of x.
        following: Noise level after the step, below sigma.
        noise: eta in the paper, at least 0.

    Returns:
        Mean and standard deviation of the next latents.
    """
    return _euler_maruyama_step(x, v, _rows(sigma, x), _rows(following, x), noise)


def cps(x: Latents, v: Latents, sigma: Level, following: Level, noise: float) -> tuple[Latents, Level]:
    """Coefficient-preserving sampling (arXiv 2509.05952): deviation s = following sin(a pi / 2).

    Fresh noise and kept noise together have the variance following^2 of the schedule. The step to sigma 0 has no
    deviation, so it has no density.

    Args:
        x: Latents.
        v: The model's velocities at x.
        sigma: Noise level of x.
        following: Noise level after the step, below sigma.
        noise: a in the formula, 0..1.

    Returns:
        Mean and standard deviation of the next latents.
    """
    x, v = _fp32(x), _fp32(v)
    sigma, following = _rows(sigma, x), _rows(following, x)
    s = following * math.sin(noise * math.pi / 2)
    return (x - sigma * v) * (1 - following) + (x + (1 - sigma) * v) * (following**2 - s**2) ** 0.5, s


STEPS: dict[str, Step] = {"flow-sde": flow_sde, "cps": cps, "dance-sde": dance_sde}


def round_to_storage(x: Float[Tensor, "*shape"], dtype: torch.dtype) -> Float[Tensor, "*shape"]:
    """Return x as it comes back from storage in `dtype`, in fp32.

    Compute log-probabilities of the stored values, in the rollout too. Otherwise the update sees another sample, and
    its ratio is not 1 before the first step.

    Args:
        x: Latents.
        dtype: Type that they are stored in.
    """
    return _fp32(x.to(dtype))


def draw_gaussian(mean: Latents, deviation: Level, noise: Latents) -> Latents:
    """Return a sample of N(mean, deviation^2).

    Args:
        mean: Mean.
        deviation: Standard deviation.
        noise: Standard normal noise.
    """
    return _fp32(mean) + _rows(deviation, mean) * _fp32(noise)


def log_prob(sample: Latents, mean: Latents, deviation: Level) -> Float[Tensor, " B"]:
    """Gaussian log-density of a sample, averaged over all dimensions except the batch.

    Args:
        sample: Latents.
        mean: Mean.
        deviation: Standard deviation, above 0.
    """
    spread = _flat(deviation)
    log_spread = spread.log() if isinstance(spread, Tensor) else math.log(spread)
    return -_mean_square(sample, mean) / (2 * spread**2) - log_spread - math.log(2 * math.pi) / 2


def gaussian_kl(mean: Latents, reference: Latents, deviation: Level, delta: Level | None = None) -> Float[Tensor, " B"]:
    """KL divergence of two Gaussians with the same deviation, averaged over all dimensions except the batch.

    Args:
        mean: Mean of one.
        reference: Mean of the other.
        deviation: Standard deviation of both, above 0.
        delta: following - sigma of an SDE step, to compute what published code does: it divides by the variance before
            that is multiplied by the step's length, which gives the KL times -delta. None for the exact KL.
    """
    kl = _mean_square(mean, reference) / (2 * _flat(deviation) ** 2)
    return kl if delta is None else kl * -_flat(delta)


def _euler_maruyama_step(x: Latents, v: Latents, sigma: Level, following: Level, s: Level) -> tuple[Latents, Level]:
    """Return mean and deviation of the Euler-Maruyama step of dx = (v + s^2 x1 / (2 sigma)) dsigma + s dw.

    This SDE keeps the flow's marginals.
    """
    x, v = _fp32(x), _fp32(v)
    delta, pull = following - sigma, s**2 / (2 * sigma)
    return x * (1 + pull * delta) + v * (1 + pull * (1 - sigma)) * delta, s * (-delta) ** 0.5


def _fp32(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return x if x.dtype == torch.float64 else x.float()


def _rows(level: Level, x: Latents) -> Level:
    """Return a level that multiplies latents x row by row: a tensor becomes (B, 1, ...) in x's dimensions."""
    return level.reshape(-1, *[1] * (x.ndim - 1)) if isinstance(level, Tensor) else level


def _flat(level: Level) -> Level:
    """Return a level that multiplies values per row, (B,). (B, 1, 1) against (B,) would mix the rows."""
    return level.flatten() if isinstance(level, Tensor) else level


def _mean_square(first: Latents, second: Latents) -> Float[Tensor, " B"]:
    return (_fp32(first) - _fp32(second)).square().flatten(1).mean(1)

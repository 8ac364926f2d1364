"""Stochastic sampling steps of a flow model with their log-probabilities.

Convention: sigma runs from 1 (noise) to 0 (picture), delta = following - sigma < 0, v is the model's velocity, x0 = x -
sigma v the picture and x1 = x + (1 - sigma) v the noise that it sees. Latents are (B, S, C). A `Level` (a sigma, a
deviation) is a float, or a tensor of one value a row, (B,) or (B, 1, 1). Maths is fp32 whatever the latents' type.
"""

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

Level: TypeAlias = float | Tensor
Step = Callable[[Tensor, Tensor, Level, Level, float], tuple[Tensor, Level]]
"""(x, v, sigma, following, noise) to the mean (B, S, C) and standard deviation of the next latents; a deviation is a
float where sigmas are, else (B, 1, 1). `noise` >= 0 is a (eta) in the papers; at 0 the step is Euler's."""


def flow_sde(x: Tensor, v: Tensor, sigma: Level, following: Level, noise: float) -> tuple[Tensor, Level]:
    """Flow-GRPO's step (arXiv 2505.05470): s = a sqrt(sigma / (1 - sigma)), deviation s sqrt(-delta).

    At sigma = 1, where the denominator would be zero, the following sigma stands in it.
    """
    sigma, following = _rows(sigma, x), _rows(following, x)
    if isinstance(sigma, Tensor):
        within = torch.where(sigma >= 1, following, sigma)
    else:
        within = following if sigma >= 1 else sigma
    return _euler_maruyama_step(x, v, sigma, following, noise * (sigma / (1 - within)) ** 0.5)


def dance_sde(x: Tensor, v: Tensor, sigma: Level, following: Level, noise: float) -> tuple[Tensor, Level]:
    """DanceGRPO's step (arXiv 2505.07818): the same noise eta at every sigma, deviation eta sqrt(-delta).

    Its drift eta^2 (x - x0 (1 - sigma)) / (2 sigma^2) is eta^2 x1 / (2 sigma): Flow-SDE's, with s = eta.
    """
    return _euler_maruyama_step(x, v, _rows(sigma, x), _rows(following, x), noise)


def cps(x: Tensor, v: Tensor, sigma: Level, following: Level, noise: float) -> tuple[Tensor, Level]:
    """Coefficient-preserving sampling (arXiv 2509.05952), `noise` in 0..1.

    The deviation is s = following sin(a pi / 2). Fresh and kept noise have the variance following^2 together, as the
    schedule says. The step to sigma 0 has no deviation, and so no density.
    """
    x, v = _fp32(x), _fp32(v)
    sigma, following = _rows(sigma, x), _rows(following, x)
    s = following * math.sin(noise * math.pi / 2)
    return (x - sigma * v) * (1 - following) + (x + (1 - sigma) * v) * (following**2 - s**2) ** 0.5, s


STEPS: dict[str, Step] = {"flow-sde": flow_sde, "cps": cps, "dance-sde": dance_sde}


def round_to_storage(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x as it comes back from storage in `dtype`, fp32.

    Take log-probabilities of what is stored, in the rollout too: rounded afterwards, the update would see another
    sample, and its ratio would not be 1 before the first step.
    """
    return _fp32(x.to(dtype))


def draw_gaussian(mean: Tensor, deviation: Level, noise: Tensor) -> Tensor:
    """The sample of N(mean, deviation^2) that standard normal `noise`, mean's shape, makes."""
    return _fp32(mean) + _rows(deviation, mean) * _fp32(noise)


def log_prob(sample: Tensor, mean: Tensor, deviation: Level) -> Tensor:
    """Gaussian log-density of `sample`, averaged over all but the batch dimension: (B,). `deviation` > 0."""
    spread = _flat(deviation)
    log_spread = spread.log() if isinstance(spread, Tensor) else math.log(spread)
    return -_mean_square(sample, mean) / (2 * spread**2) - log_spread - math.log(2 * math.pi) / 2


def gaussian_kl(mean: Tensor, reference: Tensor, deviation: Level, delta: Level | None = None) -> Tensor:
    """KL of two Gaussians of one deviation, averaged over all but the batch dimension: (B,), >= 0.

    With `delta` (following - sigma) it is what published code of the SDE steps computes, which divides by the variance
    before it is multiplied by the step's length: the KL times -delta.
    """
    kl = _mean_square(mean, reference) / (2 * _flat(deviation) ** 2)
    return kl if delta is None else kl * -_flat(delta)


def _euler_maruyama_step(x: Tensor, v: Tensor, sigma: Level, following: Level, s: Level) -> tuple[Tensor, Level]:
    """The Euler-Maruyama step of dx = (v + s^2 x1 / (2 sigma)) dsigma + s dw, which keeps the flow's marginals."""
    x, v = _fp32(x), _fp32(v)
    delta, pull = following - sigma, s**2 / (2 * sigma)
    return x * (1 + pull * delta) + v * (1 + pull * (1 - sigma)) * delta, s * (-delta) ** 0.5


def _fp32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _rows(level: Level, x: Tensor) -> Level:
    """A level that multiplies latents x row by row: a tensor as (B, 1, ...) in x's dimensions."""
    return level.reshape(-1, *[1] * (x.ndim - 1)) if isinstance(level, Tensor) else level


def _flat(level: Level) -> Level:
    """A level that multiplies figures of rows (B,); (B, 1, 1) against (B,) would mix the rows."""
    return level.flatten() if isinstance(level, Tensor) else level


def _mean_square(first: Tensor, second: Tensor) -> Tensor:
    return (_fp32(first) - _fp32(second)).square().flatten(1).mean(1)

"""Flow matching (rectified flow, arXiv 2209.03003): the loss of supervised fine-tuning. Pure functions, fp32.

Latents at a noise level sigma in 0..1 are (1 - sigma) picture + sigma noise; the velocity there is noise - picture.
"""

import torch
from torch import Tensor


def noised(picture: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Latents (B, S, C) at noise levels sigma (B,) between pictures and standard normal noise, each (B, S, C)."""
    level = sigma.reshape(-1, *[1] * (picture.ndim - 1))
    return (1 - level) * picture + level * noise


def flow_matching_loss(velocity: Tensor, picture: Tensor, noise: Tensor) -> Tensor:
    """Mean squared error (B,) of the model's velocities (B, S, C) at `noised` latents against noise - picture."""
    return (velocity.float() - (noise - picture)).square().flatten(1).mean(1)


def uniform_levels(count: int, generator: torch.Generator) -> Tensor:
    """Noise levels (count,), each as likely in 0..1."""
    return torch.rand(count, generator=generator)


def logit_normal_levels(count: int, generator: torch.Generator, mean: float = 0.0, spread: float = 1.0) -> Tensor:
    """Noise levels (count,) = sigmoid(N(mean, spread^2)): the middle more often (arXiv 2403.03206)."""
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator))


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """Noise levels moved as a larger picture's schedule moves them: shift s / (1 + (shift - 1) s), 0..1.

    FLUX's dynamic shifting is shift = exp(mu); at 1 they stay as they are.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)

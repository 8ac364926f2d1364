"""Flow matching (rectified flow, arXiv 2209.03003): the loss of supervised fine-tuning. Pure functions in fp32.

Latents at a noise level sigma in 0..1 are (1 - sigma) picture + sigma noise. The velocity there is noise - picture.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def noised(
    picture: Float[Tensor, "B S C"], noise: Float[Tensor, "B S C"], sigma: Float[Tensor, " B"]
) -> Float[Tensor, "B S C"]:
    """Return latents at given noise levels between images and noise.

    Args:
        picture: Latents of the images.
        noise: Standard normal noise.
        sigma: Noise levels, 0..1.
    """
    level = sigma.reshape(-1, *[1] * (picture.ndim - 1))
    return (1 - level) * picture + level * noise


def flow_matching_loss(
    velocity: Float[Tensor, "B S C"], picture: Float[Tensor, "B S C"], noise: Float[Tensor, "B S C"]
) -> Float[Tensor, " B"]:
    """Return the mean squared error of velocities against noise - picture, of each image.

    Args:
        velocity: The model's velocities at `noised` latents.
        picture: Latents of the images.
        noise: The noise of these latents.
    """
    return (velocity.float() - (noise - picture)).square().flatten(1).mean(1)


def uniform_levels(count: int, generator: torch.Generator) -> Float[Tensor, " count"]:
    """Draw noise levels uniformly from 0..1.

    Args:
        count: Number of levels.
        generator: Source of the random numbers.
    """
    return torch.rand(count, generator=generator)


def logit_normal_levels(
    count: int, generator: torch.Generator, mean: float = 0.0, spread: float = 1.0
) -> Float[Tensor, " count"]:
    """Draw noise levels sigmoid(N(mean, spread^2)), which prefer the middle (arXiv 2403.03206).

    Args:
        count: Number of levels.
        generator: Source of the random numbers.
        mean: Mean of the normal distribution.
        spread: Its standard deviation.
    """
    return torch.sigmoid(mean + spread * torch.randn(count, generator=generator))


def shifted(sigma: Float[Tensor, "*shape"], shift: float) -> Float[Tensor, "*shape"]:
    """Shift noise levels as the schedule of a larger image does: shift s / (1 + (shift - 1) s), 0..1.

    FLUX's dynamic shifting is shift = exp(mu).

    Args:
        sigma: Noise levels s, 0..1.
        shift: Shift factor above 0; 1 leaves the levels unchanged.
    """
    return shift * sigma / (1 + (shift - 1) * sigma)

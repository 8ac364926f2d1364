"""DiffusionNFT (arXiv 2509.16117): policy improvement on the forward process. Pure functions in fp32.

Edits of the old policy are noised again at any level. Through implicit positive and negative policies, the new velocity
is pulled towards the good ones and pushed away from the bad ones. This needs no stochastic sampler and no
log-probabilities.
"""

from jaxtyping import Float
from torch import Tensor


def compute_optimality(advantage: Float[Tensor, "*edits"], advantage_clip: float) -> Float[Tensor, "*edits"]:
    """Probability that an edit is a good one, 0..1: clip(A, +-advantage_clip) / (2 advantage_clip) + 1/2.

    Args:
        advantage: Advantages A.
        advantage_clip: The advantage at which the probability is 1, above 0.
    """
    return advantage.clamp(-advantage_clip, advantage_clip) / (2 * advantage_clip) + 0.5


def nft_loss(
    velocity: Float[Tensor, "B S C"],
    old: Float[Tensor, "B S C"],
    noised: Float[Tensor, "B S C"],
    picture: Float[Tensor, "B S C"],
    sigma: Float[Tensor, " B"],
    optimality: Float[Tensor, " B"],
    nft_beta: float,
    advantage_clip: float = 1.0,
) -> Float[Tensor, " B"]:
    """DiffusionNFT's loss of each edit.

    With b = nft_beta, the implicit positive policy is b v + (1 - b) old, and the negative one is (1 + b) old - b v.
    Each squared error is divided by its own detached mean absolute error. At optimality 1/2 and v = old the gradients
    of both parts cancel. The factor `advantage_clip` makes the pull of a small advantage independent of the clip.

    Args:
        velocity: The policy's velocities v.
        old: The old policy's velocities at the same latents.
        noised: Latents (1 - sigma) picture + sigma noise.
        picture: Latents of the finished edits.
        sigma: Noise levels, 0..1.
        optimality: Probability that each edit is a good one, 0..1, from `compute_optimality`.
        nft_beta: Strength of the implicit policies, above 0.
        advantage_clip: The advantage at which optimality is 1.

    Returns:
        The loss of each edit.
    """
    level = sigma[:, None, None]
    positive = noised - level * (nft_beta * velocity + (1 - nft_beta) * old)
    negative = noised - level * ((1 + nft_beta) * old - nft_beta * velocity)
    parts = []
    for guess in (positive, negative):
        error = guess - picture
        scale = error.detach().abs().flatten(1).mean(1).clamp_min(1e-5)
        parts.append(error.square().flatten(1).mean(1) / scale)
    return (optimality * parts[0] + (1 - optimality) * parts[1]) * (advantage_clip / nft_beta)


def kl_to_base(velocity: Float[Tensor, "B S C"], base: Float[Tensor, "B S C"]) -> Float[Tensor, " B"]:
    """Mean squared distance of velocities from the base editor's: the KL term of NFT.

    Args:
        velocity: The policy's velocities.
        base: The base editor's velocities at the same latents.
    """
    return (velocity - base).square().flatten(1).mean(1)


def old_policy_decay(step: int, highest: float, rate: float | None, flat: int = 0) -> float:
    """Decay of the old policy's moving average: 0 up to step `flat`, then min(rate (step - flat), highest).

    Args:
        step: Optimiser steps done.
        highest: The highest decay, 0..1.
        rate: What it rises by with each step; None: it is the highest from the start.
        flat: Steps before it rises.
    """
    return highest if rate is None else min(rate * max(0, step - flat), highest)

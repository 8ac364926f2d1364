"""DiffusionNFT (arXiv 2509.16117): policy improvement on the forward process. Pure functions, fp32.

The edits of the old policy are noised again at any level; the new velocity is pulled towards the good ones and
pushed from the bad ones through implicit positive and negative policies. No stochastic sampler, no log-probability.
"""

from torch import Tensor


def compute_optimality(advantage: Tensor, advantage_clip: float) -> Tensor:
    """Probability 0..1, (B,), that an edit is a good one: clip(A, +-largest) / (2 largest) + 1/2."""
    return advantage.clamp(-advantage_clip, advantage_clip) / (2 * advantage_clip) + 0.5


def nft_loss(
    velocity: Tensor,
    old: Tensor,
    noised: Tensor,
    picture: Tensor,
    sigma: Tensor,
    optimality: Tensor,
    nft_beta: float,
    advantage_clip: float = 1.0,
) -> Tensor:
    """Loss (B,) of velocities (B, S, C) at latents `noised` = (1 - sigma) picture + sigma noise.

    `old` is the old policy's velocity there, sigma (B,), good (B,) in 0..1, strength b: the positive policy is b v +
    (1 - b) old, the negative (1 + b) old - b v. Each squared error is divided by its own detached mean absolute error.
    At good = 1/2 and v = old the gradients of both parts cancel. The loss is multiplied by `largest`, the advantage at
    which `good` is 1, so that a small advantage pulls as hard whatever the largest is.
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


def kl_to_base(velocity: Tensor, base: Tensor) -> Tensor:
    """Mean squared distance (B,) of velocities (B, S, C) from the base editor's: the KL term of NFT."""
    return (velocity - base).square().flatten(1).mean(1)

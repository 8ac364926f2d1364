"""Group-relative policy optimisation: advantages within a task's group, and the clipped loss. Pure functions, fp32."""

import torch
from torch import Tensor

LARGEST_ADVANTAGE = 5.0
SMALLEST_SPREAD = 1e-4
"""A group whose rewards differ less than this teaches nothing."""


def advantages(rewards: Tensor, scale: str = "group") -> tuple[Tensor, Tensor]:
    """Advantages (P, G) of rewards (P, G), P tasks, G members; and which members count, bool (P, G).

    (r - group mean) / standard deviation, clipped to +-5. `scale` says whose deviation: the `group`'s own, or the
    `batch`'s (root mean variance of its groups), which leaves groups whose members are all alike their small say. A
    missing reward (NaN) drops out of its group; a group without spread, or with fewer than two rewards, has advantage 0
    and counts for nothing.
    """
    present = rewards.isfinite()
    filled = torch.where(present, rewards, 0.0)
    count = present.sum(1, keepdim=True).clamp_min(1)
    centred = torch.where(present, filled - filled.sum(1, keepdim=True) / count, 0.0)
    spread = (centred.square().sum(1, keepdim=True) / count).sqrt()
    counts = present & (spread > SMALLEST_SPREAD)
    if scale == "batch":
        spread = spread.square().mean().sqrt()
    scaled = (centred / spread.clamp_min(SMALLEST_SPREAD)).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)
    return torch.where(counts, scaled, 0.0), counts


def clipped_loss(
    log_prob: Tensor, rollout: Tensor, advantage: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) and the ratio r = exp(log_prob - rollout), each (B,)."""
    ratio = torch.exp(log_prob - rollout)
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)), ratio

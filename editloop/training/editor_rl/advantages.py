"""Advantages of edits within their task's group, from one reward or several. Pure functions, fp32.

Rewards are (P, G): P tasks, G members each, NaN where a reward is missing. Give the rewards of all ranks: a batch's
spread is that of the whole batch.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from editloop.errors import EditLoopError

LARGEST_ADVANTAGE = 5.0
SMALLEST_SPREAD = 1e-4
"""A group whose rewards differ less than this teaches nothing."""
Scale = Literal["group", "batch", "pooled"]
Combination = Literal["normalised", "raw"]


class Advantages(NamedTuple):
    """What a batch of rewards says about its edits."""

    values: Tensor
    """(P, G) in -5..5; 0 where an edit does not count."""
    counts: Tensor
    """bool (P, G): edits that teach something; the others are to be left out of means."""
    silent: int
    """Groups that teach nothing: without spread, or with fewer than two rewards."""
    missing: int
    """Edits without a reward."""


def compute_advantages(rewards: Tensor, scale: Scale = "group") -> Advantages:
    """(r - mean of the group) / standard deviation, clipped to +-5; deviations are of the population.

    `scale` says whose deviation: the `group`'s own; that of all rewards of the `batch` (Flow-GRPO's published code),
    in which easy and hard tasks differ too; or the `pooled` one within groups (root mean variance of the groups that
    count). The last two leave groups whose members are nearly alike their small say. A missing reward drops out of its
    group. EditLoopError at a group of one, which has no order.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise EditLoopError(
            f"rewards of shape {tuple(rewards.shape)}: advantages compare the members of a group, (tasks, members); a "
            "group of one has no order. Use 2 members or more."
        )
    rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
    present = rewards.isfinite()
    centred, variance = _centred(rewards, present, dim=1)
    counts = present & (variance.sqrt() > SMALLEST_SPREAD)
    informative = counts.any(1)
    if scale == "batch":
        variance = _centred(rewards.flatten()[None], present.flatten()[None], dim=1)[1]
    elif scale == "pooled":
        variance = variance[informative].mean() if informative.any() else variance.mean()
    values = (centred / variance.sqrt().clamp_min(SMALLEST_SPREAD)).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)
    return Advantages(
        torch.where(counts, values, 0.0), counts, int((~informative).sum().item()), int((~present).sum().item())
    )


def combine_advantages(
    rewards: Mapping[str, Tensor],
    weights: Mapping[str, float],
    *,
    combination: Combination = "normalised",
    scale: Scale = "group",
) -> Advantages:
    """Advantages (P, G) of several rewards, each (P, G), under weights > 0 of the same names.

    `raw` adds the rewards by weight: one with a wide range has the louder voice. `normalised` adds their advantages, so
    that weights mean the same whatever a reward's range; both divide by the sum of weights, and one reward is itself
    under both. An edit that lacks any of the rewards drops out: its sum would be another's. EditLoopError where names
    differ or no weight is above 0.
    """
    if not rewards or set(rewards) != set(weights) or min(weights.values()) <= 0:
        raise EditLoopError(
            f"rewards {sorted(rewards)} with weights {dict(weights)}: each reward needs one weight above 0."
        )
    weight_sum = sum(weights.values())
    lacking = torch.stack([~reward.isfinite() for reward in rewards.values()]).any(0)
    complete = {name: reward.masked_fill(lacking, torch.nan) for name, reward in rewards.items()}
    if combination == "raw":
        return compute_advantages(
            torch.stack([complete[name] * (weights[name] / weight_sum) for name in weights]).sum(0), scale
        )
    parts = {name: compute_advantages(reward, scale) for name, reward in complete.items()}
    values = torch.stack([parts[name].values * (weights[name] / weight_sum) for name in weights]).sum(0)
    counts = torch.stack([part.counts for part in parts.values()]).any(0)
    return Advantages(values, counts, int((~counts.any(1)).sum().item()), int(lacking.sum().item()))


def solved(rewards: Tensor, spread: float = 0.05, mean: float = 0.9) -> Tensor:
    """bool (P,): tasks with nothing left to learn (Edit-R1's filter).

    Their rewards (P, G), in 0..1, have a deviation below `spread` and a mean above `mean`. A task with a missing reward
    is not known to be solved.
    """
    return (rewards.std(1, correction=0) < spread) & (rewards.mean(1) > mean)


def strongest_members(advantages: Advantages, best_members: int) -> Tensor:
    """bool (P, G): the `keep` members of each group with the largest |advantage| among those that count."""
    size = advantages.values.abs().masked_fill(~advantages.counts, -1.0)
    chosen = torch.zeros_like(advantages.counts).scatter(
        1, size.topk(min(best_members, size.shape[1]), dim=1).indices, True
    )
    return chosen & advantages.counts


def _centred(rewards: Tensor, present: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Present rewards less their mean along `dim`, 0 where missing; and the variance, that dimension kept."""
    count = present.sum(dim, keepdim=True).clamp_min(1)
    filled = torch.where(present, rewards, 0.0)
    centred = torch.where(present, filled - filled.sum(dim, keepdim=True) / count, 0.0)
    return centred, centred.square().sum(dim, keepdim=True) / count

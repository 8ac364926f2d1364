"""Advantages of edits within their task's group, from one reward or several. Pure functions in fp32.

Rewards are (P, G): P tasks with G members each, NaN where a reward is missing. Pass the rewards of all ranks, because
scales `batch` and `pooled` use the spread of the whole batch.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from editloop.errors import EditLoopError

LARGEST_ADVANTAGE = 5.0
SMALLEST_SPREAD = 1e-4
"""A group whose rewards have a standard deviation of this or less teaches nothing."""
Scale = Literal["group", "batch", "pooled"]
Combination = Literal["normalised", "raw"]


class Advantages(NamedTuple):
    """Advantages of a batch of edits."""

    values: Float[Tensor, "P G"]
    """Advantages in -5..5; 0 where an edit does not count."""
    counts: Bool[Tensor, "P G"]
    """Which edits teach something. Leave the others out of means."""
    silent: int
    """Number of groups that teach nothing, because they have no spread or fewer than two rewards."""
    missing: int
    """Number of edits without a reward."""


def compute_advantages(
    rewards: Float[Tensor, "..."],
    scale: Scale = "group",
    *,
    epsilon: float = 0.0,
    groups: Int[Tensor, " P"] | None = None,
) -> Advantages:
    """Compute advantages from one reward: (r - mean of the group) / standard deviation, clipped to +-5.

    Standard deviations are of the population. A missing reward drops out of its group.

    Args:
        rewards: Rewards, (P, G), G of 2 or more; NaN where missing.
        scale: Whose standard deviation divides. `group`: the group's own. `batch`: that of all rewards of the batch
            (Flow-GRPO's published code), which also contains the difference between easy and hard tasks. `pooled`: the
            root mean variance within the groups that count. With `batch` and `pooled`, groups whose members are nearly
            alike keep their small influence.
        epsilon: Added to the standard deviation, as published code does; 0: the deviation is at least SMALLEST_SPREAD.
        groups: Group of each task, 0 to P - 1; None: each task is one.

    Raises:
        EditLoopError: The groups have one member, or `rewards` is not two-dimensional.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise EditLoopError(
            f"rewards of shape {tuple(rewards.shape)}: advantages compare the members of a group, (tasks, members); a "
            "group of one has no order. Use 2 members or more."
        )
    rewards = rewards if rewards.dtype == torch.float64 else rewards.float()
    present = rewards.isfinite()
    centred, variance = _centred(rewards, present, groups)
    counts = present & (variance.sqrt() > SMALLEST_SPREAD)
    informative = counts.any(1)
    if scale == "batch":
        variance = _centred(rewards.flatten()[None], present.flatten()[None])[1]
    elif scale == "pooled":
        variance = variance[informative].mean() if informative.any() else variance.mean()
    deviation = variance.sqrt() + epsilon if epsilon else variance.sqrt().clamp_min(SMALLEST_SPREAD)
    values = (centred / deviation).clamp(-LARGEST_ADVANTAGE, LARGEST_ADVANTAGE)
    return Advantages(
        torch.where(counts, values, 0.0), counts, int((~informative).sum().item()), int((~present).sum().item())
    )


def combine_advantages(
    rewards: Mapping[str, Float[Tensor, "P G"]],
    weights: Mapping[str, float],
    *,
    combination: Combination = "normalised",
    scale: Scale = "group",
    epsilon: float = 0.0,
    groups: Int[Tensor, " P"] | None = None,
) -> Advantages:
    """Compute advantages from several rewards.

    An edit that lacks any of the rewards drops out, because its sum would not compare with the others'. With a single
    reward both combinations give the same.

    Args:
        rewards: Rewards by name, NaN where missing.
        weights: Weight above 0 of each reward, by the same names. Only their ratios matter.
        combination: `raw` adds the rewards by weight, so one with a wide range dominates. `normalised` adds their
            advantages by weight, so weights mean the same whatever a reward's range.
        scale: As in `compute_advantages`.
        epsilon: As in `compute_advantages`.
        groups: As in `compute_advantages`.

    Raises:
        EditLoopError: Names of rewards and weights differ, a weight is not above 0, or the groups have one member.
    """
    if not rewards or set(rewards) != set(weights) or min(weights.values()) <= 0:
        raise EditLoopError(
            f"rewards {sorted(rewards)} with weights {dict(weights)}: each reward needs one weight above 0."
        )
    weight_sum = sum(weights.values())
    lacking = torch.stack([~reward.isfinite() for reward in rewards.values()]).any(0)
    complete = {name: reward.masked_fill(lacking, torch.nan) for name, reward in rewards.items()}
    if combination == "raw":
        total = torch.stack([complete[name] * (weights[name] / weight_sum) for name in weights]).sum(0)
        return compute_advantages(total, scale, epsilon=epsilon, groups=groups)
    parts = {
        name: compute_advantages(reward, scale, epsilon=epsilon, groups=groups) for name, reward in complete.items()
    }
    values = torch.stack([parts[name].values * (weights[name] / weight_sum) for name in weights]).sum(0)
    counts = torch.stack([part.counts for part in parts.values()]).any(0)
    return Advantages(values, counts, int((~counts.any(1)).sum().item()), int(lacking.sum().item()))


def solved(
    rewards: Float[Tensor, "P G"], spread: float = 0.05, mean: float = 0.9, groups: Int[Tensor, " P"] | None = None
) -> Bool[Tensor, " P"]:
    """Return which tasks have nothing left to learn (Edit-R1's filter).

    A task with a missing reward in its group does not count as solved.

    Args:
        rewards: Rewards, 0..1.
        spread: A solved group's rewards have a standard deviation below this.
        mean: A solved group's rewards have a mean above this.
        groups: As in `compute_advantages`.
    """
    deviation, average, complete = _statistics(rewards, groups)
    return complete & (deviation < spread) & (average > mean)


def teachable(
    rewards: Float[Tensor, "P G"], spread: float = 0.05, mean: float = 0.9, groups: Int[Tensor, " P"] | None = None
) -> Bool[Tensor, " P"]:
    """Return which tasks Edit-R1 trains on: their rewards differ, and are not good already. Missing ones are ignored.

    Args:
        rewards: Rewards, 0..1.
        spread: The group's rewards have a standard deviation above this.
        mean: The group's rewards have a mean below this.
        groups: As in `compute_advantages`.
    """
    deviation, average, _ = _statistics(rewards, groups)
    return (deviation > spread) & (average < mean)


def strongest_members(advantages: Advantages, best_members: int) -> Bool[Tensor, "P G"]:
    """Return the members of each group with the largest |advantage| among those that count.

    Args:
        advantages: Advantages of the batch.
        best_members: Number of members to select in each group.
    """
    size = advantages.values.abs().masked_fill(~advantages.counts, -1.0)
    chosen = torch.zeros_like(advantages.counts).scatter(
        1, size.topk(min(best_members, size.shape[1]), dim=1).indices, True
    )
    return chosen & advantages.counts


def _statistics(
    rewards: Float[Tensor, "P G"], groups: Int[Tensor, " P"] | None
) -> tuple[Float[Tensor, " P"], Float[Tensor, " P"], Bool[Tensor, " P"]]:
    """Return standard deviation and mean of the present rewards of each task's group, and whether none is missing."""
    present = rewards.isfinite()
    centred, variance = _centred(rewards, present, groups)
    mean = torch.where(present, rewards - centred, -torch.inf).amax(1)
    lacking = (~present).any(1)
    if groups is not None:
        mean = torch.full_like(mean, -torch.inf).scatter_reduce(0, groups, mean, "amax")[groups]
        lacking = torch.zeros_like(groups).index_add(0, groups, lacking.to(groups.dtype))[groups] > 0
    return variance[:, 0].sqrt(), mean, ~lacking


def _centred(
    rewards: Float[Tensor, "P G"], present: Bool[Tensor, "P G"], groups: Int[Tensor, " P"] | None = None
) -> tuple[Float[Tensor, "P G"], Float[Tensor, "P 1"]]:
    """Return present rewards minus their group's mean (0 where missing), and the group's variance. A row is a group, or
    part of the one that `groups` says."""

    def summed(rows: Tensor) -> Tensor:
        sums = rows.sum(1)
        return (sums if groups is None else torch.zeros_like(sums).index_add(0, groups, sums)[groups])[:, None]

    count = summed(present).clamp_min(1)
    filled = torch.where(present, rewards, 0.0)
    centred = torch.where(present, filled - summed(filled) / count, 0.0)
    return centred, summed(centred.square()) / count

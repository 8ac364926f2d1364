"""A preference loss over groups of candidates: every pair of a group once, each axis by itself or all axes as one."""

import torch
from torch import Tensor

from editloop.datasets.labels import TIE
from editloop.training.edit_reward.losses import PAIR_LOSSES, REGRESSION, PairLoss, tie_loss

TARGETS = ("axes", "fused")
"""What a pair's order is asked of: each axis's own score, or the axes' mean score (as EditReward publishes it)."""


def group_loss(
    mu: Tensor, log_sigma: Tensor, ratings: Tensor, valid: Tensor, weights: Tensor, loss: str, target: str = "axes"
) -> tuple[Tensor, Tensor]:
    """Weighted mean loss over the ordered pairs of G groups of up to K candidates, and the weights' sum.

    mu, log_sigma, ratings: (G, K, A); valid: (G, K) bool; weights: (G, K, K, A or 1), how much a pair counts on an
    axis, 0 where it has no order there; loss: a name of `LOSSES`.

    With target `axes` a pair enters on every axis whose ratings differ, so an overall tie whose axes disagree teaches
    both ways. With `fused` a pair is ordered by the sum of its ratings and asked of the mean of mu and of log sigma; an
    overall tie whose axes disagree becomes two samples, each on its axis. A tie on all axes has no order; under
    `bradley-terry-ties` it teaches that the two are alike. `regression` looks at candidates, not at pairs, and
    `weights` not at all.
    """
    if loss == REGRESSION:
        squared = (mu - ratings).square() * valid[..., None]
        return squared.sum() / (valid.sum() * mu.shape[-1]).clamp_min(1), valid.sum().float()
    both_valid = (valid[:, :, None] & valid[:, None, :])[..., None]
    gap = ratings[:, :, None] - ratings[:, None]
    weights = weights.expand(gap.shape)
    samples = [(mu, log_sigma, (gap > 0) * both_valid * weights)]
    if target == "fused":
        overall = gap.sum(-1, keepdim=True)
        fused = (mu.mean(-1, keepdim=True), log_sigma.mean(-1, keepdim=True))
        ordered = (overall > TIE) * both_valid * weights.mean(-1, keepdim=True)
        samples = [(*fused, ordered), (mu, log_sigma, samples[0][2] * (overall.abs() <= TIE))]
    total, count = mu.new_zeros(()), mu.new_zeros(())
    for score, uncertainty, weight in samples:
        total = total + (_pairs(PAIR_LOSSES[loss], score, uncertainty) * weight).sum()
        count = count + weight.sum()
    if loss == "bradley-terry-ties":
        tied = both_valid & (gap.abs() <= TIE) & torch.ones(gap.shape[1:3], device=gap.device).triu(1).bool()[..., None]
        total = total + (tie_loss(mu[:, :, None], mu[:, None]) * tied).sum()
        count = count + tied.sum()
    return total / count.clamp_min(1), count


def _pairs(loss: PairLoss, mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Loss of every candidate preferred to every other of its group, (G, K, K, A)."""
    return loss(mu[:, :, None], log_sigma[:, :, None], mu[:, None], log_sigma[:, None])

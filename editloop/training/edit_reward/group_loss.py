"""Preference loss over groups of candidates: every pair of a group once, each axis by itself or all axes as one."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from editloop.datasets.labels import TIE
from editloop.training.edit_reward.losses import PAIR_LOSSES, REGRESSION, PairLoss, tie_loss


def group_loss(
    mu: Float[Tensor, "G K A"],
    log_sigma: Float[Tensor, "G K A"],
    ratings: Float[Tensor, "G K A"],
    valid: Bool[Tensor, "G K"],
    weights: Float[Tensor, "G K K #A"],
    loss: str,
    target: str = "axes",
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Weighted mean loss over the ordered pairs of G groups of up to K candidates, rated on A axes.

    With target `axes`, a pair counts on every axis whose ratings differ. An overall tie whose axes disagree therefore
    teaches both axes. With `fused`, a pair is ordered by the sum of its ratings, and the loss is on the mean of mu and
    of log sigma over the axes. An overall tie whose axes disagree then becomes two samples, each on its axis.

    A pair that ties on all axes has no order. Under `bradley-terry-ties` it teaches that the two are alike.
    `regression` is a loss on candidates, not on pairs, and ignores `weights`.

    Args:
        mu: Mean scores.
        log_sigma: Log standard deviations of the scores.
        ratings: Mean ratings.
        valid: Which places hold a candidate.
        weights: Weight of each pair on each axis, or on all axes alike; 0 where it has no order there.
        loss: A name in `LOSSES`.
        target: A name in `TARGETS`.

    Returns:
        The mean loss and the sum of the weights it is the mean over.
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


def _pairs(loss: PairLoss, mu: Float[Tensor, "G K A"], log_sigma: Float[Tensor, "G K A"]) -> Float[Tensor, "G K K A"]:
    """Return the loss of every candidate preferred to every other of its group."""
    return loss(mu[:, :, None], log_sigma[:, :, None], mu[:, None], log_sigma[:, None])

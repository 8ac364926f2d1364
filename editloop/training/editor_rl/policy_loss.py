"""Clipped policy loss of Flow-GRPO on one step's log-probabilities. Pure functions in fp32.

Log-probabilities are means over a sample's dimensions, so ratios lie near 1 and clip ranges are small (1e-5 to 1e-3).
"""

import torch
from torch import Tensor

from editloop.training.editor_rl.sde import Level, gaussian_kl


def probability_ratio(log_prob: Tensor, rollout_log_prob: Tensor) -> Tensor:
    """Ratio of the probabilities under the present policy and under the policy of the rollout, (B,).

    Args:
        log_prob: Log-probabilities under the present policy, (B,).
        rollout_log_prob: Log-probabilities under the policy of the rollout, (B,).
    """
    return torch.exp(log_prob - rollout_log_prob)


def guarded_ratio(
    log_prob: Tensor, rollout_log_prob: Tensor, mean: Tensor, rollout_mean: Tensor, deviation: Level
) -> Tensor:
    """GRPO-Guard's ratio (arXiv 2510.22319), (B,).

    With c = deviation it is exp((log_prob - rollout_log_prob) c + mean((mean - rollout_mean)^2) / (2 c)) = exp(mean(eps
    (mean - rollout_mean))), where the rollout drew rollout_mean + c eps. The plain ratio is below 1 on average, the
    more so the smaller c is, so its upper clip is never reached. The logarithm of this one has mean 0 and the same
    scale at all steps.

    Args:
        log_prob: Log-probabilities under the present policy, (B,).
        rollout_log_prob: Log-probabilities under the policy of the rollout, (B,).
        mean: The step's mean under the present policy, (B, S, C).
        rollout_mean: The step's mean in the rollout, (B, S, C).
        deviation: The step's standard deviation c = s sqrt(-delta), above 0.
    """
    c = deviation.flatten() if isinstance(deviation, Tensor) else deviation
    return torch.exp((log_prob - rollout_log_prob + gaussian_kl(mean, rollout_mean, deviation)) * c)


def clipped_loss(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Clipped policy loss max(-A r, -A clip(r, 1 - low, 1 + high)), (B,).

    Args:
        ratio: Probability ratios r, (B,).
        advantage: Advantages A, (B,).
        low: Clip range below 1.
        high: Clip range above 1.
    """
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def clipped_mask(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """Where the clip is active, so that the loss has no gradient, bool (B,).

    Args:
        ratio: Probability ratios, (B,).
        advantage: Advantages, (B,).
        low: Clip range below 1.
        high: Clip range above 1.
    """
    return ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))


def masked_mean(losses: Tensor, counts: Tensor) -> Tensor:
    """Mean of losses over the edits that count; 0, with a gradient of 0, where none does.

    Args:
        losses: Losses, (B,).
        counts: Which edits count, bool (B,).
    """
    return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp_min(1)

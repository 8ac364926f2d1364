"""The clipped policy loss of Flow-GRPO on one step's log-probabilities. Pure functions, fp32.

Log-probabilities are means over a sample's dimensions, so ratios lie near 1 and clip ranges are tiny (1e-5 to 1e-3).
"""

import torch
from torch import Tensor

from editloop.training.editor_rl.sde import Level, gaussian_kl


def probability_ratio(log_prob: Tensor, rollout_log_prob: Tensor) -> Tensor:
    """Probability under the policy over that under the policy that rolled out, (B,), from log-probs (B,)."""
    return torch.exp(log_prob - rollout_log_prob)


def guarded_ratio(
    log_prob: Tensor, rollout_log_prob: Tensor, mean: Tensor, rollout_mean: Tensor, deviation: Level
) -> Tensor:
    """GRPO-Guard's ratio (arXiv 2510.22319), (B,); means (B, S, C) of the step, its deviation c = s sqrt(-delta).

    exp((log_prob - rollout) c + mean((mean - rollout_mean)^2) / (2 c)) = exp(mean(eps (mean - rollout_mean))), where
    the rollout drew rollout_mean + c eps. The plain ratio lies below 1 on average, the more the smaller c is, so that
    its upper clip is never reached; the logarithm of this one has mean 0 and one scale at all steps.
    """
    c = deviation.flatten() if isinstance(deviation, Tensor) else deviation
    return torch.exp((log_prob - rollout_log_prob + gaussian_kl(mean, rollout_mean, deviation)) * c)


def clipped_loss(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), (B,), of ratios and advantages (B,)."""
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def clipped_mask(ratio: Tensor, advantage: Tensor, low: float, high: float) -> Tensor:
    """bool (B,): where the clip holds, and the loss has no gradient."""
    return ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))


def masked_mean(losses: Tensor, counts: Tensor) -> Tensor:
    """Mean of losses (B,) over the edits that count, bool (B,); 0, with a gradient of 0, where none does."""
    return torch.where(counts, losses, 0.0).sum() / counts.sum().clamp_min(1)

"""Clipped policy loss of Flow-GRPO on one step's log-probabilities. Pure functions in fp32.

Log-probabilities are means over a sample's dimensions, so ratios lie near 1 and clip ranges are small (1e-5 to 1e-3).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from editloop.training.editor_rl.sde import Level, gaussian_kl


def probability_ratio(log_prob: Float[Tensor, " B"], rollout_log_prob: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    """Ratio of the probabilities under the present policy and under the policy of the rollout.

    Args:
        log_prob: Log-probabilities under the present policy.
        rollout_log_prob: Log-probabilities under the policy of the rollout.
    """
    return torch.exp(log_prob - rollout_log_prob)


def guarded_ratio(
    log_prob: Float[Tensor, " B"],
    rollout_log_prob: Float[Tensor, " B"],
    mean: Float[Tensor, "B S C"],
    rollout_mean: Float[Tensor, "B S C"],
    deviation: Level,
) -> Float[Tensor, " B"]:
    """GRPO-Guard's ratio (arXiv 2510.22319).

    With c = deviation it is exp((log_prob - rollout_log_prob) c + mean((mean - rollout_mean)^2) / (2 c)) = exp(mean(eps
    (mean - rollout_mean))), where the rollout drew rollout_mean + c eps. The plain ratio is below 1 on average, the
    more so the smaller c is, so its upper clip is never reached. The logarithm of this one has mean 0 and the same
    scale at all steps.

    Args:
        log_prob: Log-probabilities under the present policy.
        rollout_log_prob: Log-probabilities under the policy of the rollout.
        mean: The step's mean under the present policy.
        rollout_mean: The step's mean in the rollout.
        deviation: The step's standard deviation c = s sqrt(-delta), above 0.
    """
    c = deviation.flatten() if isinstance(deviation, Tensor) else deviation
    return torch.exp((log_prob - rollout_log_prob + gaussian_kl(mean, rollout_mean, deviation)) * c)


def clipped_loss(
    ratio: Float[Tensor, " B"], advantage: Float[Tensor, " B"], low: float, high: float
) -> Float[Tensor, " B"]:
    """Clipped policy loss max(-A r, -A clip(r, 1 - low, 1 + high)).

    Args:
        ratio: Probability ratios r.
        advantage: Advantages A.
        low: Clip range below 1.
        high: Clip range above 1.
    """
    return torch.maximum(-advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high))


def clipped_mask(
    ratio: Float[Tensor, " B"], advantage: Float[Tensor, " B"], low: float, high: float
) -> Bool[Tensor, " B"]:
    """Where the clip is active, so that the loss has no gradient.

    Args:
        ratio: Probability ratios.
        advantage: Advantages.
        low: Clip range below 1.
        high: Clip range above 1.
    """
    return ((advantage > 0) & (ratio > 1 + high)) | ((advantage < 0) & (ratio < 1 - low))

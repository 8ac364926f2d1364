"""Weights of a trajectory's trained steps in the loss. Pure functions."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Reweighting = Literal["none", "mean-one", "published"]


def step_weights(
    kind: Reweighting, deviations: Float[Tensor, " W"], trained: Bool[Tensor, "N W"]
) -> Float[Tensor, "N W"]:
    """Weights of steps in an edit's policy loss; TempFlow-GRPO's (arXiv 2508.04324) are std_i / mean_j(std_j).

    A step explores as far as its noise reaches. The gradient of the plain loss is proportional to 1 / std, so without
    weights the late steps, which can change little, would count most. Weights of mean 1 leave the learning rate its
    meaning.

    Args:
        kind: `none`: all are 1. `mean-one`: TempFlow-GRPO's, the mean being over the edit's trained steps. `published`:
            N times these for N trained steps, as EditScore's RL code has them, so that a KL term, which has no weights,
            counts N times less beside the policy loss.
        deviations: Standard deviation of each step.
        trained: Which steps each edit is trained on, at least one each. Weights of the others mean nothing.
    """
    if kind == "none":
        return torch.ones_like(trained, dtype=deviations.dtype)
    number = trained.sum(1, keepdim=True)
    weights = deviations / (torch.where(trained, deviations, 0.0).sum(1, keepdim=True) / number)
    return weights * number if kind == "published" else weights

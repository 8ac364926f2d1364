"""An ensemble of reward heads on one frozen backbone, cheap enough to fit anew for every selection.

The members differ in their initial weights. Where they disagree about a pair, the judgements so far do not decide it.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editloop.training.edit_reward.group_loss import group_loss

MEMBERS = 5
"""Heads per axis."""
HIDDEN = (128, 16)
"""Widths of the hidden layers. Narrower than EditReward's heads (1024, 16): from a hundred judgements they learn
slightly more, six times as fast."""
STEPS = 200
"""Optimiser steps of a fit."""
TASKS_A_BATCH = 32
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.05


class EnsembleLabels(NamedTuple):
    """Judged tasks as training data of the heads: G tasks, at most K candidates, A axes."""

    hidden: Tensor
    """(G, K, A, width): the backbone's states at the reward tokens; zero where there is no candidate."""
    ratings: Tensor
    """(G, K, A): mean ratings."""
    valid: Tensor
    """(G, K) bool: whether the candidate exists."""
    weights: Tensor
    """(G, K, K, A or 1): the weight of each pair."""


class HeadEnsemble(nn.Module):
    """`members` heads per axis, evaluated together; they predict mu only, since Bradley-Terry teaches no sigma."""

    def __init__(self, width: int, axes: int, members: int, generator: torch.Generator):
        """Draw the initial weights of all heads.

        Args:
            width: Width of the backbone's states.
            axes: Number of axes, A.
            members: Number of members, M.
            generator: Source of the weights.
        """
        super().__init__()
        sizes = (width, *HIDDEN, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)
            self.weights.append((torch.rand(members, axes, inputs, outputs, generator=generator) * 2 - 1) * bound)
            self.biases.append((torch.rand(members, axes, 1, outputs, generator=generator) * 2 - 1) * bound)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return every member's mu, (members, G, K, A).

        Args:
            hidden: States of the backbone, (G, K, A, width).
        """
        tasks, candidates, axes, width = hidden.shape
        x = hidden.reshape(tasks * candidates, axes, width).transpose(0, 1)[None].float()
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            x = torch.relu(x) if depth < len(self.weights) - 1 else x
        return x.transpose(1, 2).reshape(-1, tasks, candidates, axes)


def fit_ensemble(labels: EnsembleLabels, seed: int, members: int = MEMBERS) -> HeadEnsemble:
    """Fit an ensemble to judged tasks: STEPS of AdamW with warm-up and cosine decay.

    All members see the same batches.

    Args:
        labels: The judged tasks.
        seed: Seed of the weights and of the batches; the same seed gives the same members.
        members: Number of members.

    Returns:
        The ensemble, in evaluation mode.
    """
    tasks, _, axes, width = labels.hidden.shape
    generator = torch.Generator().manual_seed(seed)
    ensemble = HeadEnsemble(width, axes, members, generator)
    optimiser = torch.optim.AdamW(ensemble.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    for step in range(STEPS):
        rate_factor = min((step + 1) / (0.1 * STEPS), 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        optimiser.param_groups[0]["lr"] = PEAK_RATE * rate_factor
        batch = torch.randperm(tasks, generator=generator)[:TASKS_A_BATCH]
        mu = ensemble(labels.hidden[batch]).flatten(0, 1)
        ratings, valid, weights = (tensor[batch].repeat(members, *[1] * (tensor.dim() - 1)) for tensor in labels[1:])
        loss, _ = group_loss(mu, torch.zeros_like(mu), ratings, valid, weights, "bradley-terry")
        optimiser.zero_grad()
        (loss * members).backward()
        optimiser.step()
    return ensemble.eval()

"""An ensemble of reward heads on one frozen backbone: cheap enough to fit anew whenever something is asked.

Members differ in their first weights and in the order of what they see. Where they disagree about a pair, the
judgements so far do not say.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from editloop.training.edit_reward.group_loss import group_loss

MEMBERS = 5
HIDDEN = (128, 16)
"""Narrower than EditReward's heads (1024, 16): of a hundred judgements they learn a little more, six times as fast."""
STEPS = 200
TASKS_A_BATCH = 32
PEAK_RATE = 2e-3
WEIGHT_DECAY = 0.05


class EnsembleLabels(NamedTuple):
    """Judged tasks as the heads see them: G tasks, K candidates at most, A axes."""

    hidden: Tensor
    """(G, K, A, width): the backbone's states at the reward tokens."""
    ratings: Tensor
    """(G, K, A): mean ratings."""
    valid: Tensor
    """(G, K) bool: judged."""
    weights: Tensor
    """(G, K, K, A or 1): how much each pair counts."""


class HeadEnsemble(nn.Module):
    """`members` heads an axis, side by side; mu alone, as Bradley-Terry teaches no sigma."""

    def __init__(self, width: int, axes: int, members: int, generator: torch.Generator):
        super().__init__()
        sizes = (width, *HIDDEN, 1)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for inputs, outputs in pairwise(sizes):
            bound = 1 / math.sqrt(inputs)
            self.weights.append((torch.rand(members, axes, inputs, outputs, generator=generator) * 2 - 1) * bound)
            self.biases.append((torch.rand(members, axes, 1, outputs, generator=generator) * 2 - 1) * bound)

    def forward(self, hidden: Tensor) -> Tensor:
        """mu, (members, G, K, A), of hidden states (G, K, A, width)."""
        tasks, candidates, axes, width = hidden.shape
        x = hidden.reshape(tasks * candidates, axes, width).transpose(0, 1)[None].float()
        for depth, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            x = x @ weight + bias
            x = torch.relu(x) if depth < len(self.weights) - 1 else x
        return x.transpose(1, 2).reshape(-1, tasks, candidates, axes)


def fit_ensemble(labels: EnsembleLabels, seed: int, members: int = MEMBERS) -> HeadEnsemble:
    """Fit an ensemble to what was judged: STEPS of AdamW, warm-up then cosine; the same seed gives the same members."""
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

"""Passes of an update through the network: who trains which edits at which level, in equally many passes on every rank.

ZeRO adds up gradients whenever a rank goes back through the network, so ranks must go back equally often.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.distributed as distributed
from torch import Tensor

from editloop.training.distributed import all_reduce_sum
from editloop.training.editor_rl.algorithm import UpdateLevel
from editloop.training.editor_rl.rollout import micro_batches
from editloop.training.editor_rl.update_steps import OptimiserStep


class RolloutWork(NamedTuple):
    """Edits of a rollout that some optimiser step learns from."""

    levels: list[UpdateLevel]
    advantage: Tensor
    """(n,)."""
    weights: Tensor
    """Of each optimiser step, (steps, n)."""


class Pass(NamedTuple):
    """Edits that go through the network together, forward and back."""

    levels: list[UpdateLevel]
    advantage: Tensor
    """Of all edits of their rollout, (n,)."""
    weight: Tensor
    """Weights of these in the optimiser step, (n,)."""
    part: Tensor
    """Indices of the edits of this pass."""


class LevelPasses(NamedTuple):
    """Passes of a level in an optimiser step."""

    own: list[Pass]
    """This rank's."""
    most: int
    """Number of passes of the rank that has most."""


def passes_of(
    work: Sequence[RolloutWork], plan: Sequence[OptimiserStep], most: int
) -> dict[tuple[int, int], LevelPasses]:
    """Return the passes of each level of each optimiser step. Every rank calls it.

    Args:
        work: This rank's edits.
        plan: The optimiser steps of the iteration.
        most: Largest number of edits in a pass.
    """
    own = {
        (number, level): [
            Pass(rollout.levels, rollout.advantage, rollout.weights[number], places)
            for rollout in work
            if rollout.levels
            for places in micro_batches(_trained_at(rollout.levels[level], rollout.weights[number]), most)
        ]
        for number, step in enumerate(plan)
        for level in step.levels
    }
    largest = _largest([len(passes) for passes in own.values()])
    return {key: LevelPasses(passes, count) for (key, passes), count in zip(own.items(), largest, strict=True)}


def _trained_at(level: UpdateLevel, weights: Tensor) -> Tensor:
    """Return which edits a step with these weights (n,) trains at a level, bool (n,)."""
    return weights > 0 if level.edits is None else (weights > 0) & level.edits


def _largest(counts: list[int]) -> list[int]:
    """Return the largest of the ranks' counts, for each of several, on every rank."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    table = torch.zeros(ranks, len(counts), dtype=torch.float64)
    table[rank] = torch.tensor(counts, dtype=torch.float64)
    gathered = torch.tensor(all_reduce_sum(table.flatten())).view(ranks, len(counts))
    return [int(value) for value in gathered.amax(0).tolist()]

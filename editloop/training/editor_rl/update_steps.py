"""Which edits each optimiser step of an iteration learns from, and how much each counts. Pure functions.

Edits are numbered over all ranks: member m of the p-th task of the iteration is p * members + m. What is drawn here
depends on the seed and the iteration alone, so that every rank, and a training that continues, gets the same.
"""

from math import ceil
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

ORDER, DRAW = 1, 2
"""Purposes of random numbers beside the choice of tasks, which has none. Each has its own random stream."""


class OptimiserStep(NamedTuple):
    """An optimiser step: its loss is the sum over edits and levels of weight times loss, divided by `divisor`."""

    levels: range
    """Levels of the update that it adds up."""
    weights: Float[Tensor, " E"]
    """Relative weight of each edit; 0 for those that it does not learn from."""
    divisor: float


def forward_batches(edits: int, size: int | None, seed: int, iteration: int) -> Int[Tensor, " E"]:
    """Return the batch of each edit, 0 first: the edits in random order, cut into batches.

    Args:
        edits: Number of edits of the iteration, over all ranks.
        size: Edits in a batch, at most; None puts each into one of its own. Batches are as even as can be.
        seed: The training's seed.
        iteration: The iteration, from 0.
    """
    places = np.random.default_rng([seed, iteration, ORDER]).permutation(edits)
    return torch.from_numpy(places * ceil(edits / (size or 1)) // edits)


def optimiser_steps(
    trained: Bool[Tensor, " E"],
    batches: Int[Tensor, " E"],
    *,
    count: int | None,
    together: bool,
    levels: int,
    levels_per_edit: int,
) -> list[OptimiserStep]:
    """Return the optimiser steps of an iteration.

    Args:
        trained: Which edits are trained on.
        batches: Batch of each edit, from `forward_batches`.
        count: Number of steps, each on its share of the edits at all levels. None: a step a level on all edits.
        together: Whether a batch's loss is the mean over its trained edits, and each batch counts alike, also one
            without any. Otherwise every trained edit counts alike, and steps share the trained edits evenly.
        levels: Number of levels of the update.
        levels_per_edit: Number of those that each edit is trained at.
    """
    units = batches  # what the steps share: batches, or trained edits, numbered in order
    if together:
        total = int(batches.max()) + 1
        in_batch = torch.bincount(batches[trained], minlength=total).clamp_min(1)
        weights = trained / in_batch[batches]
    else:
        places = trained.nonzero().flatten()
        total, weights = len(places), trained.float()
        units = batches.clone()  # of edits that are not trained, whose weight is 0, it does not matter
        units[places[batches[places].argsort()]] = torch.arange(total)
    if count is None:
        return [OptimiserStep(range(level, level + 1), weights, total) for level in range(levels)]
    if not total:
        return [OptimiserStep(range(levels), weights, 0)] * count
    step_of, sizes = units * count // total, torch.bincount(torch.arange(total) * count // total, minlength=count)
    return [
        OptimiserStep(range(levels), torch.where(step_of == step, weights, 0.0), size * levels_per_edit)
        for step, size in enumerate(sizes.tolist())
    ]


def drawn_levels(
    batches: Int[Tensor, " N"], *, levels: int, drawn: int, seed: int, iteration: int
) -> Bool[Tensor, "N L"]:
    """Return the levels that each edit is trained at: `drawn` different ones of all, the same for edits of one batch.

    Args:
        batches: Batch of each edit.
        levels: Number of levels.
        drawn: Number of those that are drawn.
        seed: The training's seed.
        iteration: The iteration, from 0.
    """
    chosen = torch.zeros(len(batches), levels, dtype=torch.bool)
    for batch in batches.unique().tolist():
        places = np.random.default_rng([seed, iteration, DRAW, batch]).choice(levels, drawn, replace=False)
        chosen[(batches == batch)[:, None] & torch.isin(torch.arange(levels), torch.from_numpy(places))] = True
    return chosen

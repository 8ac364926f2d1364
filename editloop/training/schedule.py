"""Division of a training's units into steps, and the learning rate of each step. Functions of the step alone."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.training.settings import TrainingSettings


class TrainingSchedule(NamedTuple):
    """Division of a training's units into steps."""

    units: int
    batch: int
    """Units per step."""
    micro: int
    """Units per pass."""
    passes: int
    """Passes that a rank makes for a step."""
    epoch: int
    """Steps per epoch. Units left over after the last step are left out, different ones in each epoch."""
    total: int
    """Steps of the whole training."""

    @classmethod
    def of(cls, settings: TrainingSettings, units: int, ranks: int) -> "TrainingSchedule":
        """Return the division for a training.

        Args:
            settings: The training's settings.
            units: Number of training units.
            ranks: Number of ranks.
        """
        batch = min(settings.batch, units)
        micro, passes = settings.accumulation(ranks, units)
        epoch = units // batch
        return cls(units, batch, micro, passes, epoch, settings.steps or (settings.epochs or 0) * epoch)

    def units_of(self, step: int, seed: int) -> NDArray[np.int64]:
        """Return the units of a step: its part of the epoch's random permutation, (batch,).

        Args:
            step: The step, from 0.
            seed: The training's seed.
        """
        order = _epoch_order(self.units, seed, step // self.epoch)
        step_in_epoch = step % self.epoch
        return order[step_in_epoch * self.batch : (step_in_epoch + 1) * self.batch]

    def rank_units(self, units: NDArray[np.int64], pass_index: int, rank: int, ranks: int) -> NDArray[np.int64]:
        """Return the units that one rank computes in one pass of a step; empty where none are left for it.

        Args:
            units: The step's units, (batch,).
            pass_index: The pass, from 0.
            rank: The rank, from 0.
            ranks: Number of ranks.
        """
        start = (pass_index * ranks + rank) * self.micro
        return units[start : start + self.micro]


@lru_cache(2)
def _epoch_order(units: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of an epoch's units. Every pass of every step asks for it; two epochs meet where one ends."""
    return np.random.default_rng([seed, epoch]).permutation(units)


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Return the learning rate of a step: linear warm-up, then constant or half a cosine to 0.

    The cosine runs over all steps, the warm-up included.

    Args:
        settings: Peak, warm-up share and schedule.
        step: The step, from 0.
        steps: Steps of the whole training.
    """
    share = min(1.0, (step + 1) / (settings.warmup * steps)) if settings.warmup else 1.0
    if settings.schedule == "cosine":
        share = min(share, 0.5 * (1 + math.cos(math.pi * step / steps)))
    return settings.learning_rate * share

"""How a training's units fall into steps, and the learning rate of each: functions of the step alone."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.training.settings import TrainingSettings


class LearningRateSchedule(NamedTuple):
    """How a training's units fall into steps."""

    units: int
    batch: int
    """Units a step."""
    micro: int
    """Units a pass."""
    passes: int
    """Passes a rank makes for a step."""
    epoch: int
    """Steps an epoch; what is left of the units after them is left out, others each time."""
    total: int
    """Steps in all."""

    @classmethod
    def of(cls, settings: TrainingSettings, units: int, ranks: int) -> "LearningRateSchedule":
        batch = min(settings.batch, units)
        micro, passes = settings.accumulation(ranks, units)
        epoch = units // batch
        return cls(units, batch, micro, passes, epoch, settings.steps or (settings.epochs or 0) * epoch)

    def units_of(self, step: int, seed: int) -> NDArray[np.int64]:
        """The units of step 0, 1, ...: the epoch's permutation, `batch` after `batch`."""
        order = np.random.default_rng([seed, step // self.epoch]).permutation(self.units)
        step_in_epoch = step % self.epoch
        return order[step_in_epoch * self.batch : (step_in_epoch + 1) * self.batch]


def learning_rate(settings: TrainingSettings, step: int, steps: int) -> float:
    """Rate of step 0, 1, ... of `steps`: linear warm-up, then level or along half a cosine over all steps to 0."""
    warm = min(1.0, (step + 1) / (settings.warmup * steps)) if settings.warmup else 1.0
    falling = 0.5 * (1 + math.cos(math.pi * step / steps)) if settings.schedule == "cosine" else 1.0
    return settings.learning_rate * min(warm, falling)

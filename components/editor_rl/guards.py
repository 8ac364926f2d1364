"""When a training is stopped, and which of its states is kept: a pure rule on what the evaluations saw.

A reward that is cheated rises while a judge that does not teach falls. Both are compared on the same tasks with the
same noise, so what is tested are differences of one task's scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Scores = NDArray[np.float64]
"""(T,): a score for each held-out task, 0..1, NaN where it is missing."""


class GuardSettings(BaseModel):
    """What ends a training before its last iteration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluations: int = Field(3, ge=1)
    """So many evaluations in a row must say the same before the training is stopped."""
    error: float = Field(0.05, gt=0, lt=1)
    """Chance, over a whole training, of taking noise of the tasks for a fall. It is divided by the number of earlier
    evaluations, any of which may have been the best by luck."""
    most_kl: float | None = Field(None, gt=0)
    """Stop where the distance to the base editor is larger; null for no limit."""
    most_missing: float = Field(0.5, gt=0, le=1)
    """Stop where a larger share of an evaluation's scores of the reward is missing."""


@dataclass(frozen=True)
class Seen:
    """What the rule is told of one evaluation."""

    iteration: int
    reward: Scores
    """Of the judges that teach."""
    watching: Mapping[str, Scores] = field(default_factory=dict)
    """Of each judge that does not."""
    kl: float | None = None
    """Distance to the base editor in training, since the evaluation before."""


@dataclass(frozen=True)
class Ruling:
    """What the rule says after the latest evaluation."""

    stop: bool
    best: bool
    """Whether no earlier evaluation was better: by the judges that do not teach, or by the reward where none is."""
    best_iteration: int
    reason: str
    """Why it is stopped, in a sentence; empty where it goes on."""


def rule(seen: Sequence[Seen], settings: GuardSettings) -> Ruling:
    """Whether to go on after the last of `seen` (at least one, in their order)."""
    raise NotImplementedError

"""What every judge of edits takes and gives: a local reward model, a served one, or somebody else's endpoint.

Light on purpose (numpy only): a client imports it without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError

Picture = NDArray[np.uint8]
"""(height, width, 3), RGB, 0..255. Sizes may differ from picture to picture."""


@dataclass(frozen=True)
class EditGroup:
    """One source, one instruction, and the K edits that answer it: what a judge computes shared parts of once."""

    instruction: str
    source: Picture
    edits: Sequence[Picture]
    """K pictures; an array (K, height, width, 3) will do."""
    key: str = ""
    """What the caller calls the group; judges do not look at it."""


@dataclass(frozen=True)
class AxisScore:
    """A judge's belief about one axis of one edit, on the judge's own scale."""

    mean: float
    sigma: float
    """Standard deviation, at least 0: of the model's belief (EditReward) or over passes (EditScore)."""


@dataclass(frozen=True)
class Score:
    """What a judge says of one edit. A score that is missing has a reason and no numbers, never a made-up one."""

    axes: dict[str, AxisScore] = field(default_factory=dict)
    """By the judge's axis names; empty where the score is missing."""
    fused: AxisScore | None = None
    """The axes as one belief, on the judge's own scale."""
    overall: float | None = None
    """One number to order edits of a task by, on a scale that people know: EditReward's is the sum of two ratings of
    1..4 (2..8), EditScore's is O, 0..10."""
    reward: float | None = None
    """The same for RL, 0..1."""
    missing: str = ""
    """Why there is no score; empty where there is one."""
    answers: tuple[str, ...] = ()
    """The judge's own words, one text a question and pass, of a judge that writes; with a missing score too."""


class JudgeUnavailableError(EditLoopError):
    """The judge cannot be reached, is overloaded or does not answer as it should: what was asked may be right."""


class StaleJudgeError(JudgeUnavailableError):
    """Another model answers than did before: scores of the two do not belong together."""


class Judge(Protocol):
    """Scores edits. Safe to call from one thread at a time."""

    @property
    def name(self) -> str:
        """Registered name of its kind: `edit-reward`, `edit-score`, or an endpoint's model name."""
        ...

    @property
    def version(self) -> str:
        """Content address of the weights (a manifest's sha256), or what the endpoint says its model is."""
        ...

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes that its scores have."""
        ...

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """One score an edit, in the groups' order.

        EditLoopError where a group cannot be judged at all; JudgeUnavailableError where none can be, now.
        """
        ...

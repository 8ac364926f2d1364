"""A judge's figures on a suite, as published and with what makes them honest."""

from dataclasses import dataclass
from typing import Any

from components.suites.answers import Answers
from components.suites.outcomes import Outcomes
from components.suites.suite import Suite


@dataclass(frozen=True)
class Evaluation:
    report: dict[str, Any]
    """JSON-able; a figure that cannot be measured is None."""
    outcomes: Outcomes
    """Unit by unit, for a gate; no units in a suite of correlations."""


def evaluate(suite: Suite, answers: Answers, *, seed: int = 0) -> Evaluation:
    """All figures of the answers; `seed` is that of the resampling and of the folds of held-out thresholds."""
    raise NotImplementedError

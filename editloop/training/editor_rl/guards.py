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


class StopSettings(BaseModel):
    """What ends a training before its last iteration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    evaluations: int = Field(3, ge=1)
    """So many evaluations in a row must say the same before the training is stopped."""
    error: float = Field(0.05, gt=0, lt=1)
    """Chance, over a whole training, of taking noise of the tasks for a fall. It is divided by the number of earlier
    evaluations, any of which may have been the best by luck."""
    most_kl: float | None = Field(None, gt=0)
    """Stop where the distance to the base editor is larger; null for no limit."""


@dataclass(frozen=True)
class EvaluationScores:
    """What the rule is told of one evaluation."""

    iteration: int
    reward: Scores
    """Of the judges that teach."""
    watching: Mapping[str, Scores] = field(default_factory=dict)
    """Of each judge that does not."""
    kl: float | None = None
    """Distance to the base editor in training, since the evaluation before."""


@dataclass(frozen=True)
class StopDecision:
    """What the rule says after the latest evaluation."""

    stop: bool
    best: bool
    """Whether no earlier evaluation was better: by the judges that do not teach, or by the reward where none is."""
    best_iteration: int
    reason: str
    """Why it is stopped, in a sentence; empty where it goes on."""


def early_stopping_rule(evaluations: Sequence[EvaluationScores], settings: StopSettings) -> StopDecision:
    """Whether to go on after the last of `seen` (at least one, in their order).

    Stops where in each of the last `evaluations` a judge that does not teach scores lower than at its best before, and
    the reward higher, both by one-sided paired t-tests over the tasks; and where a limit is passed.

    Simulated with the default settings, 400 trainings a row of 64 tasks and 8 to 40 evaluations, each task's scores on
    a random walk: where the judge stays level in the mean (the worst honest case) 2 to 4 % are stopped, where it rises
    by 0.003 an evaluation at most 0.5 %; where it falls by 0.01 an evaluation, 75 to 100 % are caught. With 16 tasks
    1 % and 15 %: evaluate on 64 or more.
    """
    values = [_mean_score(evaluation) for evaluation in evaluations]
    best = int(np.nanargmax(values)) if np.isfinite(values).any() else len(evaluations) - 1
    reason = _kl_limit_reason(evaluations[-1], settings) or _reward_hacking_reason(evaluations, settings)
    return StopDecision(bool(reason), best == len(evaluations) - 1, evaluations[best].iteration, reason)


def _mean_score(evaluation: EvaluationScores) -> float:
    """How good an evaluation was: the mean score by the judges that do not teach, of the reward where none is."""
    means = [_mean(scores) for scores in evaluation.watching.values()] or [_mean(evaluation.reward)]
    return float(np.mean(means))


def _kl_limit_reason(last: EvaluationScores, settings: StopSettings) -> str:
    if settings.most_kl is not None and last.kl is not None and last.kl > settings.most_kl:
        return (
            f"iteration {last.iteration}: the distance to the base editor is {last.kl:.4g}, more than "
            f"{settings.most_kl:g} (stop.most_kl). Raise kl, or lower learning_rate."
        )
    return ""


def _reward_hacking_reason(evaluations: Sequence[EvaluationScores], settings: StopSettings) -> str:
    before, latest = evaluations[: -settings.evaluations], evaluations[-settings.evaluations :]
    if not before:
        return ""
    for judge in latest[-1].watching:
        means = [_mean(evaluation.watching[judge]) for evaluation in before]
        if not np.isfinite(means).any():
            continue
        best = before[int(np.nanargmax(means))]
        level = settings.error / (len(before) * len(latest[-1].watching))
        if all(
            chance_of_rise(best.watching[judge], evaluation.watching[judge], falls=True) < level
            and chance_of_rise(best.reward, evaluation.reward) < settings.error
            for evaluation in latest
        ):
            now = latest[-1]
            return (
                f"The reward rises while {judge} falls: since iteration {best.iteration} the reward went from "
                f"{_mean(best.reward):.3f} to {_mean(now.reward):.3f}, {judge} from {_mean(best.watching[judge]):.3f} "
                f"to {_mean(now.watching[judge]):.3f}, in {len(latest)} evaluations in a row and by more than the "
                "tasks' noise. The editor has learnt what the reward likes and not what is right: look at the sheets, "
                "then raise kl, or train the reward on edits of this editor."
            )
    return ""


def chance_of_rise(before: Scores, now: Scores, *, falls: bool = False) -> float:
    """One-sided p of a paired t-test over tasks: how often scores (T,) would rise (or fall) so far with no change.

    Tasks without both scores are left out; 1 where fewer than two are left.
    """
    from scipy.stats import t

    change = (before - now) if falls else (now - before)
    change = change[np.isfinite(change)]
    if len(change) < 2:
        return 1.0
    deviation = float(change.std(ddof=1))
    if deviation == 0:
        return 0.0 if change[0] > 0 else 1.0
    return float(t.sf(change.mean() / (deviation / np.sqrt(len(change))), len(change) - 1))


def _mean(scores: Scores) -> float:
    present = scores[np.isfinite(scores)]
    return float(present.mean()) if len(present) else float("nan")

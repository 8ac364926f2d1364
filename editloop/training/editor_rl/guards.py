"""Early stopping of an online RL training, and the choice of the best state. A pure rule on the evaluations' scores.

When a reward is hacked, it rises while a watching judge, from which the editor does not learn, falls. Both score the
same tasks with the same noise, so the tests are on differences within a task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from editloop.settings_file import FrozenModel

Scores = NDArray[np.float64]
"""Score of each held-out task, (T,), 0..1; NaN where it is missing."""


class StopSettings(FrozenModel):
    """Conditions that end a training before its last iteration."""

    evaluations: int = Field(3, ge=1)
    """Number of evaluations in a row that must agree before the training is stopped."""
    error: float = Field(0.05, gt=0, lt=1)
    """Probability, over a whole training, of taking noise of the tasks for a fall. It is divided by the number of
    earlier evaluations, because any of them may have been the best by luck."""
    most_kl: float | None = Field(None, gt=0)
    """Stop where the distance to the base editor is larger; null for no limit."""


@dataclass(frozen=True)
class EvaluationScores:
    """Scores of one evaluation, as the rule needs them."""

    iteration: int
    reward: Scores
    """Reward of each task, from the reward judges."""
    watching: Mapping[str, Scores] = field(default_factory=dict)
    """Scores of each watching judge, by name."""
    kl: float | None = None
    """Mean distance to the base editor in training since the evaluation before; None where it was not measured."""


@dataclass(frozen=True)
class Verdict:
    """Result of an evaluation for the training loop."""

    stop: bool
    best: bool
    """Whether no earlier evaluation was better, by the watching judges, or by the reward where there are none; the
    editor's state is kept then."""
    reason: str
    """Why the training is stopped, in a sentence; empty where it goes on."""
    best_iteration: int
    figures: dict[str, float] = field(default_factory=dict)
    """Measured values by name, for metrics and the progress line (`reward`)."""


def early_stopping_rule(evaluations: Sequence[EvaluationScores], settings: StopSettings) -> Verdict:
    """Decide whether to go on after the last evaluation.

    The training stops when a watching judge falls while the reward rises: in each of the last `settings.evaluations`,
    the judge scores lower than at its best evaluation before them and the reward scores higher, both by one-sided
    paired t-tests over the tasks. It also stops when the distance to the base editor passes its limit.

    Simulated with the default settings, 400 trainings per case, 64 tasks, 8 to 40 evaluations, each task's scores on a
    random walk. Where the judge stays level in the mean (the worst honest case), 2 to 4 % of the trainings are stopped.
    Where it rises by 0.003 per evaluation, at most 0.5 % are. Where it falls by 0.01 per evaluation, 75 to 100 % are
    caught. With 16 tasks, 1 % are stopped where the judge stays level and 15 % are caught where it falls: evaluate on
    64 tasks or more.

    Args:
        evaluations: All evaluations so far in their order, at least one.
        settings: When to stop.
    """
    values = [_mean_score(evaluation) for evaluation in evaluations]
    best = int(np.nanargmax(values)) if np.isfinite(values).any() else len(evaluations) - 1
    reason = _kl_limit_reason(evaluations[-1], settings) or _reward_hacking_reason(evaluations, settings)
    return Verdict(bool(reason), best == len(evaluations) - 1, reason, evaluations[best].iteration)


def _mean_score(evaluation: EvaluationScores) -> float:
    """Return an evaluation's mean score by the watching judges, or its mean reward where there are none."""
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
    """One-sided p of a paired t-test over tasks: the probability of so large a rise if nothing had changed.

    Args:
        before: Earlier scores, (T,).
        now: Later scores of the same tasks, (T,). Tasks without both scores are left out.
        falls: Test for a fall instead of a rise.

    Returns:
        The p value, 0..1; 1 with fewer than two tasks.
    """
    from scipy.stats import ttest_1samp

    change = (before - now) if falls else (now - before)
    change = change[np.isfinite(change)]
    if len(change) < 2:
        return 1.0
    if change.std() == 0:
        return 0.0 if change[0] > 0 else 1.0
    return float(ttest_1samp(change, 0, alternative="greater").pvalue)


def _mean(scores: Scores) -> float:
    present = scores[np.isfinite(scores)]
    return float(present.mean()) if len(present) else float("nan")

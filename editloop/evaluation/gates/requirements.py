"""What a gate can ask of a reward model beside its suites: order among an editor's own samples, and worth of training.

Each requirement has a verdict as a suite has: promote where the whole interval lies above the bound, reject where it
lies below, hold in between or with too few units. One that the gate does not ask for is shown, without a say.
"""

from collections.abc import Callable
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from editloop.evaluation.gates.settings import GateSettings
from editloop.evaluation.outcomes import Outcomes, align_outcomes
from editloop.evaluation.within_editor import WithinEditor
from editloop.lineage.gate_decision import Verdict
from editloop.statistics.bootstrap import percentile_interval, resampled_ratios, sum_by_cluster

WITHOUT_A_SAY = " (shown, without a say)"


class Requirement(TypedDict):
    """Figures and verdict of a requirement in gate.json. The reason goes to the top of it."""

    required: bool
    bound: float | None
    minimum: int | None
    verdict: Verdict
    units: int
    missing: int
    figures: dict[str, float | None]
    """The compared figures: `new`, `old` and, for the baseline, `untrained`."""
    intervals: dict[str, list[float] | None]
    """By what is measured: the correlation of `new` and `old`, or the gains of both over the untrained model."""
    names: dict[str, str]
    """Names of the models of `figures`, where they are not in gate.json otherwise."""
    reason: NotRequired[str]


class _Asked(NamedTuple):
    """What a gate asks: the interval above `bound`, on at least `minimum` units."""

    bound: float
    minimum: int


class PairedGain(NamedTuple):
    """A difference of shares of right units, with its interval."""

    gain: float | None
    interval: list[float] | None


def within_editor_requirement(settings: GateSettings, new: WithinEditor, old: WithinEditor) -> Requirement:
    """Return whether a model orders one editor's samples of a task as experts do.

    Args:
        settings: The gate; `within_editor` says what is asked.
        new: The new model's correlation.
        old: The old model's.
    """
    rule = settings.within_editor
    asked = None if rule is None else _Asked(rule.least, rule.minimum)
    verdict, why = _verdict(asked, new.groups, new.interval, _correlation)
    figures = f"{_correlation(new.correlation)} (old {_correlation(old.correlation)})"
    return {
        "required": asked is not None,
        "bound": None if asked is None else asked.bound,
        "minimum": None if asked is None else asked.minimum,
        "verdict": verdict,
        "units": new.groups,
        "missing": new.missing,
        "figures": {"new": new.correlation, "old": old.correlation},
        "intervals": {"new": new.interval, "old": old.interval},
        "names": {},
        "reason": f"within one editor's samples: rank correlation with the experts {figures}, interval "
        f"{_span(new.interval, _correlation)}, on {new.groups} groups: {why}",
    }


def baseline_requirement(
    settings: GateSettings, new: Outcomes, old: Outcomes, untrained: Outcomes, name: str, seed: int
) -> Requirement:
    """Return whether a model is worth its training: by how much it is better than the untrained backbone.

    Args:
        settings: The gate; `baseline` says what is asked.
        new: Outcomes of the new model.
        old: Outcomes of the old model on the same units.
        untrained: Outcomes of the untrained model on the same units.
        name: What the untrained model is.
        seed: Seed of the resampling.

    Raises:
        EditLoopError: The outcomes are not of the same units.
    """
    rule = settings.baseline
    old, untrained = align_outcomes(new, old), align_outcomes(new, untrained)
    gain = _paired_gain(settings, new, untrained, seed)
    asked = None if rule.least_gain is None else _Asked(rule.least_gain, rule.minimum)
    verdict, why = _verdict(asked, len(new), gain.interval, _points)
    shares = {"new": new.right, "old": old.right, "untrained": untrained.right}
    return {
        "required": asked is not None,
        "bound": rule.least_gain,
        "minimum": None if asked is None else asked.minimum,
        "verdict": verdict,
        "units": len(new),
        "missing": int(untrained.missing.sum()),
        "figures": {key: _mean(right) for key, right in shares.items()},
        "intervals": {"new": gain.interval, "old": _paired_gain(settings, old, untrained, seed).interval},
        "names": {"untrained": name},
        "reason": f"{new.suite}: {_points(gain.gain)} over the untrained {name}, interval "
        f"{_span(gain.interval, _points)}, on {len(new)} units: {why}",
    }


def unmeasured_baseline(settings: GateSettings, why: str) -> Requirement:
    """Return the requirement where the untrained model could not be measured: hold, if the gate asks for it.

    Args:
        settings: The gate.
        why: Why not.
    """
    rule = settings.baseline
    required = rule.least_gain is not None
    return {
        "required": required,
        "bound": rule.least_gain,
        "minimum": rule.minimum if required else None,
        "verdict": "hold",
        "units": 0,
        "missing": 0,
        "figures": {},
        "intervals": {},
        "names": {},
        "reason": f"the untrained backbone was not measured: {why}{'' if required else WITHOUT_A_SAY}",
    }


def _paired_gain(settings: GateSettings, model: Outcomes, untrained: Outcomes, seed: int) -> PairedGain:
    """The share of right units of a model less that of the untrained one, with its interval over sources."""
    change = (model.right - untrained.right)[:, None]
    if not len(change):
        return PairedGain(None, None)
    sums = sum_by_cluster(change, np.ones_like(change), model.clusters)
    resampled = resampled_ratios(*sums, seed=seed, resamples=settings.resamples)
    interval = percentile_interval(resampled.draws[:, 0], int(resampled.clusters[0]), 1 - settings.alpha)
    return PairedGain(float(change.mean()), interval)


def _verdict(
    asked: _Asked | None, units: int, interval: list[float] | None, text: Callable[[float | None], str]
) -> tuple[Verdict, str]:
    """The verdict on a figure, and the reason. One of which nothing is asked is only shown."""
    if asked is None:
        return "hold", f"no least value is asked{WITHOUT_A_SAY}"
    bound, minimum = asked
    if units < minimum:
        return "hold", f"too few to decide, at least {minimum} are asked"
    if interval is None:
        return "hold", "one source alone has no interval; more data would decide"
    low, high = interval
    if low > bound:
        return "promote", f"the interval lies above {text(bound)}"
    if high < bound:
        return "reject", f"the interval lies below {text(bound)}"
    return "hold", f"the interval does not lie above {text(bound)}; more data would decide"


def _mean(right: NDArray[np.float64]) -> float | None:
    return float(right.mean()) if len(right) else None


def _span(interval: list[float] | None, text: Callable[[float | None], str]) -> str:
    return "not measured" if interval is None else f"{text(interval[0])} to {text(interval[1])}"


def _correlation(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"


def _points(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:+.1f} points"

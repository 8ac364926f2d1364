"""The gate's decision: promote on evidence, hold without it, reject on evidence against; with reasons in words.

Each required suite is decided by a paired bootstrap of the difference. All must promote: this is an intersection of
tests, so none needs a correction. With a margin of 0, and if every unit is right or wrong, McNemar's exact test must
agree. A slice with a significant regression beyond its margin rejects (Holm's correction over all slices).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
from numpy.typing import NDArray

from editloop.content import sha256_json
from editloop.evaluation.gates.requirements import Requirement
from editloop.evaluation.gates.settings import GateSettings, IndependentJudge, SuiteGate
from editloop.evaluation.outcomes import Outcomes, align_outcomes
from editloop.lineage.gate_decision import Verdict
from editloop.pages.plots import finite_or_none
from editloop.statistics.bootstrap import p_value_below, percentile_intervals, resampled_ratios, sum_by_cluster
from editloop.statistics.holm import holm
from editloop.statistics.mcnemar import discordant_counts, mcnemar

ALL = "all"
"""Name of the whole suite among its slices."""


class _Figures(TypedDict):
    """Figures of a suite or slice in gate.json."""

    units: int
    new: float | None
    old: float | None
    change: float | None
    interval: list[float | None]


class _SliceReport(_Figures):
    """Figures of one slice in gate.json. `regressed` is None where it was not tested."""

    slice: str
    p_regressed: float
    regressed: NotRequired[bool | None]


class _SuiteReport(_Figures):
    """Figures and verdict of one suite in gate.json. The reasons go to the top of it."""

    suite: str
    required: bool
    margin: float
    minimum: int
    verdict: Verdict
    mcnemar_p: float | None
    missing: int
    slices: list[_SliceReport]
    reasons: NotRequired[list[str]]


class _JudgeReport(TypedDict):
    """Figures and verdict of one independent judge in gate.json. The reason goes to the top of it."""

    judge: str
    asked_for: str
    margin: float
    counts: bool
    verdict: Verdict
    net_preference: float | None
    interval: list[float | None]
    tasks: int
    missing: int
    reason: NotRequired[str]


class SuiteMeasurement(NamedTuple):
    """A suite's gate, and the outcomes of the two judges (or editors) on it."""

    gate: SuiteGate
    new: Outcomes
    old: Outcomes


class Agreement(NamedTuple):
    """An independent judge's preferences between the new editor's edits and the base's."""

    gate: IndependentJudge
    preferences: NDArray[np.float64]
    """(tasks,): +1 for the new editor, -1 for the base, 0 for a tie; NaN without an answer."""
    clusters: tuple[str, ...]
    """Source image of each task, by its digest."""
    trained_it: bool
    """Whether this very judge trained the editor; it then has no vote."""


def decide(
    settings: GateSettings,
    measured: Sequence[SuiteMeasurement],
    agreements: Sequence[Agreement] = (),
    *,
    requirements: Mapping[str, Requirement] | None = None,
    against: str,
    seed: int = 0,
) -> dict[str, Any]:
    """Decide whether a model is promoted.

    Args:
        settings: The gate.
        measured: Outcomes on each suite.
        agreements: Preferences of the independent judges.
        requirements: What else is asked or shown of a reward model, by name; see `gates.requirements`.
        against: What the new model is compared with, in words.
        seed: Seed of the bootstrap.

    Returns:
        The content of gate.json: {"verdict", "reasons", "gate", "gate_sha256", "alpha", "against", "suites",
        "requirements", "independent"}.

    Raises:
        EditLoopError: The two outcomes of a suite are not of the same units.

    Examples:
        >>> import editloop, numpy as np
        >>> from editloop.evaluation.outcomes import Outcomes
        >>> keys = tuple(f"pair-{number}" for number in range(200))
        >>> def outcomes(right):
        ...     unit = np.arange(200) % 10 < 10 * right
        ...     return Outcomes("heldout", keys, keys, ("all",) * 200, unit.astype(float), np.zeros(200, bool))
        >>> gate = editloop.read_gate("reward")
        >>> measured = [editloop.SuiteMeasurement(gate.suites[0], new=outcomes(0.9), old=outcomes(0.5))]
        >>> editloop.decide(gate, measured, against="the champion")["verdict"]
        'promote'
    """
    suites = [_suite_report(settings, measurement, seed) for measurement in measured]
    _mark_regressions(settings, suites)
    judges = [_judge_report(settings, agreement, seed) for agreement in agreements]
    verdicts = [suite["verdict"] for suite in suites if suite["required"]] + [
        judge["verdict"] for judge in judges if judge["counts"]
    ]
    reasons = [reason for suite in suites for reason in suite.pop("reasons")]
    asked = {name: requirement.copy() for name, requirement in (requirements or {}).items()}
    verdicts += [requirement["verdict"] for requirement in asked.values() if requirement["required"]]
    reasons += [requirement.pop("reason") for requirement in asked.values()]
    reasons += [judge.pop("reason") for judge in judges]
    if not any(report["required"] for report in suites) and not any(report["counts"] for report in judges):
        verdicts.append("hold")
        reasons.append("nothing that may decide was measured: no required suite, no judge that did not train it")
    verdict: Verdict = "reject" if "reject" in verdicts else "promote" if set(verdicts) == {"promote"} else "hold"
    if settings.always and verdict != "promote":
        reasons.insert(0, f"gate {settings.name} lets everything through; by its figures it would be {verdict}")
        verdict = "promote"
    return {
        "verdict": verdict,
        "reasons": [f"{reason}." for reason in reasons],
        "gate": settings.name,
        "gate_sha256": sha256_json(settings.model_dump(mode="json")),
        "alpha": settings.alpha,
        "against": against,
        "suites": suites,
        "requirements": asked,
        "independent": judges,
    }


def _suite_report(settings: GateSettings, measurement: SuiteMeasurement, seed: int) -> _SuiteReport:
    """Return figures, verdict and reasons of one suite; its slices are not tested yet."""
    new, old = measurement.new, align_outcomes(measurement.new, measurement.old)
    names = [ALL, *sorted(set(new.slices))]
    inside = np.array([[name in (ALL, unit) for name in names] for unit in new.slices], dtype=np.float64)
    change = (new.right - old.right)[:, None] * inside
    resampled = resampled_ratios(*sum_by_cluster(change, inside, new.clusters), seed=seed, resamples=settings.resamples)
    ends = percentile_intervals(resampled, 1 - settings.alpha)
    units = [int((inside[:, index] > 0).sum()) for index in range(len(names))]
    p_regressed = p_value_below(resampled, -settings.slices.margin)
    rows: list[_SliceReport] = [
        {
            "slice": name,
            "units": units[index],
            "new": _share(new.right, inside[:, index]),
            "old": _share(old.right, inside[:, index]),
            "change": finite_or_none(resampled.values[index]),
            "interval": [finite_or_none(end) for end in ends[index]],
            "p_regressed": float(p_regressed[index]),
        }
        for index, name in enumerate(names)
    ]
    overall = rows[0]
    verdict, why, p = _overall_verdict(settings, measurement, overall, old)
    low, high = overall["interval"]
    figures = (
        f"{measurement.gate.suite}: {_signed(overall['change'])} "
        f"({_percent(overall['old'])} to {_percent(overall['new'])}), "
        f"{100 * (1 - settings.alpha):g} % interval {_signed(low)} to {_signed(high)}, on {overall['units']} units"
    )
    aside = "" if measurement.gate.required else " (shown, without a say)"
    return {
        "suite": measurement.gate.suite,
        "required": measurement.gate.required,
        "margin": measurement.gate.margin,
        "minimum": measurement.gate.minimum,
        "verdict": verdict,
        "mcnemar_p": p,
        "missing": int(new.missing.sum()),
        "units": overall["units"],
        "new": overall["new"],
        "old": overall["old"],
        "change": overall["change"],
        "interval": overall["interval"],
        "slices": rows[1:],
        "reasons": [f"{figures}: {why}{aside}"],
    }


def _overall_verdict(
    settings: GateSettings, measurement: SuiteMeasurement, overall: _SliceReport, old: Outcomes
) -> tuple[Verdict, str, float | None]:
    """Return the verdict on a suite as a whole, the reason, and McNemar's p (None if it was not tested)."""
    bound, (low, high) = 0.0 - measurement.gate.margin, overall["interval"]
    p = mcnemar(measurement.new.right, old.right) if measurement.gate.margin == 0 else None
    if overall["units"] < measurement.gate.minimum:
        return "hold", f"too few to decide, at least {measurement.gate.minimum} are asked", p
    if low is None or high is None:
        return "hold", "one source or task alone has no interval; more data would decide", p
    missing_share = float(measurement.new.missing.mean())
    if missing_share > settings.most_missing:
        return "hold", f"{missing_share:.0%} of the answers are missing, at most {settings.most_missing:.0%} may be", p
    if high < bound:
        return "reject", f"the interval lies below {_signed(bound)}", p
    if low <= bound:
        return "hold", f"the interval does not lie above {_signed(bound)}; more data would decide", p
    if p is not None and p > settings.alpha / 2:
        gained, lost = discordant_counts(measurement.new.right, old.right)
        return "hold", f"McNemar's test does not agree ({gained} units gained, {lost} lost, p = {p:.3f})", p
    checked = "" if p is None else f", and McNemar's test agrees (p = {p:.2g})"
    return "promote", f"the interval lies above {_signed(bound)}{checked}", p


def _mark_regressions(settings: GateSettings, suites: list[_SuiteReport]) -> None:
    """Reject each suite with a slice that regressed.

    One Holm correction covers the slices of all required suites.
    """
    rules = settings.slices
    family = [
        (suite, row)
        for suite in suites
        if suite["required"]
        for row in suite["slices"]
        if row["units"] >= rules.minimum and (not rules.names or row["slice"] in rules.names)
    ]
    for suite in suites:
        for row in suite["slices"]:
            row["regressed"] = None
    if not family:
        return
    regressions = holm(np.log([row["p_regressed"] for _, row in family]), settings.alpha)
    for (suite, row), regressed in zip(family, regressions, strict=True):
        row["regressed"] = bool(regressed)
        if regressed:
            suite["verdict"] = "reject"
            suite["reasons"].append(
                f"{suite['suite']}, {row['slice']}: regressed by more than {100 * rules.margin:g} points "
                f"({_signed(row['change'])}, p = {row['p_regressed']:.2g}, Holm over {len(family)} slices)"
            )


def _judge_report(settings: GateSettings, agreement: Agreement, seed: int) -> _JudgeReport:
    """Return whether an independent judge agrees, with figures and the reason."""
    answered = ~np.isnan(agreement.preferences)
    values = np.where(answered, agreement.preferences, 0.0)[:, None]
    resampled = resampled_ratios(
        *sum_by_cluster(values, answered[:, None].astype(np.float64), agreement.clusters),
        seed=seed,
        resamples=settings.resamples,
    )
    low, high = (finite_or_none(end) for end in percentile_intervals(resampled, 1 - settings.alpha)[0])
    net, task_count = finite_or_none(resampled.values[0]), len(answered)
    bound = 0.0 if agreement.gate.agree == "better" else 0.0 - agreement.gate.margin
    verdict: Verdict = "hold"
    if agreement.trained_it:
        why = "the editor learnt from it, so it has no say"
    elif answered.sum() < agreement.gate.minimum or low is None or high is None:
        why = f"too few answers to decide, at least {agreement.gate.minimum} are asked"
    elif low > bound:
        verdict, why = "promote", f"agrees, the interval lies above {_signed(bound)}"
    elif high < bound:
        verdict, why = "reject", f"disagrees, the interval lies below {_signed(bound)}"
    else:
        why = f"does not agree yet, the interval does not lie above {_signed(bound)}"
    return {
        "judge": agreement.gate.judge,
        "asked_for": agreement.gate.agree,
        "margin": agreement.gate.margin,
        "counts": not agreement.trained_it,
        "verdict": verdict,
        "net_preference": net,
        "interval": [low, high],
        "tasks": task_count,
        "missing": int(task_count - answered.sum()),
        "reason": f"judge {agreement.gate.judge} prefers the new editor by {_signed(net)} of {task_count} tasks, "
        f"interval {_signed(low)} to {_signed(high)}: {why}",
    }


def _share(right: NDArray[np.float64], inside: NDArray[np.float64]) -> float | None:
    return float((right * inside).sum() / inside.sum()) if inside.sum() > 0 else None


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    """Format a difference of shares in percentage points."""
    if value is None:
        return "not measured"
    points = f"{100 * value:+.1f}"
    return f"{'0.0' if points in ('+0.0', '-0.0') else points} points"

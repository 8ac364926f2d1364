"""The gate: promote on evidence, hold without it, reject on evidence against; with reasons in words.

Each required suite is decided by a paired bootstrap of the difference; all must promote (an intersection of tests, so
none is corrected). Where a margin of 0 is asked and every unit is right or wrong, McNemar's exact test must agree. Any
slice that is shown to have regressed by more than its margin rejects (Holm over all slices).
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation.quality.annotator_flags import holm
from components.gates.bootstrap import by_cluster, chance_above, interval, resampled_ratios
from components.gates.mcnemar import mcnemar, only_one_right
from components.gates.settings import GateSettings, SuiteGate
from components.suites.outcomes import Outcomes, paired
from infra.content import sha256_json

Verdict = Literal["promote", "hold", "reject"]
ALL = "all"
"""Name of the whole among the slices of a measurement."""


class Measured(NamedTuple):
    """A suite's gate and what the two judges (or editors) came to on it."""

    gate: SuiteGate
    new: Outcomes
    old: Outcomes


class Agreement(NamedTuple):
    """What an independent judge said of the new editor's edits beside the base's."""

    judge: str
    asked_for: str
    """better or not-worse."""
    margin: float
    minimum: int
    preferences: NDArray[np.float64]
    """(tasks,): +1 for the new editor, -1 for the base, 0 for a tie; NaN where it did not answer."""
    clusters: tuple[str, ...]
    trained_it: bool
    """Whether the editor learnt from this very judge, which then has no say."""


def decide(
    settings: GateSettings, measured: Sequence[Measured], agreements: Sequence[Agreement] = (), *, against: str,
    seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """{"verdict", "reasons", "gate", "gate_sha256", "against", "suites", "independent"}: what gate.json holds.

    against: in words, what the new model is compared with. EditLoopError where two outcomes are not of the same units.
    """
    suites = [_suite(settings, one, seed) for one in measured]
    _mark_regressions(settings, suites)
    judges = [_judge(settings, one, seed) for one in agreements]
    verdicts = [one["verdict"] for one in suites if one["required"]] + [
        one["verdict"] for one in judges if one["counts"]
    ]
    reasons = [reason for one in suites for reason in one.pop("reasons")]
    reasons += [one.pop("reason") for one in judges]
    if not any(one["required"] for one in suites) and not any(one["counts"] for one in judges):
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
        "independent": judges,
    }


def _suite(settings: GateSettings, one: Measured, seed: int) -> dict[str, Any]:
    """Figures, verdict and reasons of one suite, its slices not yet judged."""
    new, old = one.new, paired(one.new, one.old)
    names = [ALL, *sorted(set(new.slices))]
    inside = np.array([[name in (ALL, unit) for name in names] for unit in new.slices], dtype=np.float64)
    change = (new.right - old.right)[:, None] * inside
    found = resampled_ratios(*by_cluster(change, inside, new.clusters), seed=seed, resamples=settings.resamples)
    ends = interval(found, 1 - settings.alpha)
    units = [int((inside[:, place] > 0).sum()) for place in range(len(names))]
    fallen = chance_above(found, -settings.slices.margin)
    rows: list[dict[str, Any]] = [
        {
            "slice": name, "units": units[place], "new": _share(new.right, inside[:, place]),
            "old": _share(old.right, inside[:, place]), "change": _known(found.values[place]),
            "interval": [_known(end) for end in ends[place]], "p_regressed": float(fallen[place]),
        }
        for place, name in enumerate(names)
    ]  # fmt: skip
    whole = rows[0]
    verdict, why, p = _whole(settings, one, whole, old)
    low, high = whole["interval"]
    told = (
        f"{one.gate.suite}: {_signed(whole['change'])} ({_percent(whole['old'])} to {_percent(whole['new'])}), "
        f"{100 * (1 - settings.alpha):g} % interval {_signed(low)} to {_signed(high)}, on {whole['units']} units"
    )
    aside = "" if one.gate.required else " (shown, without a say)"
    return {
        "suite": one.gate.suite, "required": one.gate.required, "margin": one.gate.margin,
        "minimum": one.gate.minimum, "verdict": verdict, "mcnemar_p": p, "missing": int(new.missing.sum()),
        "units": whole["units"], "new": whole["new"], "old": whole["old"], "change": whole["change"],
        "interval": whole["interval"], "slices": rows[1:], "reasons": [f"{told}: {why}{aside}"],
    }  # fmt: skip


def _whole(
    settings: GateSettings, one: Measured, whole: dict[str, Any], old: Outcomes
) -> tuple[Verdict, str, float | None]:
    """Verdict of a suite as a whole, why, and McNemar's p where it was asked."""
    bound, (low, high) = 0.0 - one.gate.margin, whole["interval"]
    p = mcnemar(one.new.right, old.right) if one.gate.margin == 0 else None
    if whole["units"] < one.gate.minimum:
        return "hold", f"too few to decide, at least {one.gate.minimum} are asked", p
    if low is None:
        return "hold", "one source or task alone has no interval; more data would decide", p
    absent = float(one.new.missing.mean())
    if absent > settings.most_missing:
        return "hold", f"{absent:.0%} of the answers are missing, at most {settings.most_missing:.0%} may be", p
    if high < bound:
        return "reject", f"the interval lies below {_signed(bound)}", p
    if low <= bound:
        return "hold", f"the interval does not lie above {_signed(bound)}; more data would decide", p
    if p is not None and p > settings.alpha / 2:
        gained, lost = only_one_right(one.new.right, old.right)
        return "hold", f"McNemar's test does not agree ({gained} units gained, {lost} lost, p = {p:.3f})", p
    checked = "" if p is None else f", and McNemar's test agrees (p = {p:.2g})"
    return "promote", f"the interval lies above {_signed(bound)}{checked}", p


def _mark_regressions(settings: GateSettings, suites: list[dict[str, Any]]) -> None:
    """Reject a suite with a slice that regressed; one Holm correction over all slices of all required suites."""
    wanted = settings.slices
    family = [
        (suite, row)
        for suite in suites
        if suite["required"]
        for row in suite["slices"]
        if row["units"] >= wanted.minimum and (not wanted.names or row["slice"] in wanted.names)
    ]
    for suite in suites:
        for row in suite["slices"]:
            row["regressed"] = None
    if not family:
        return
    fallen = holm(np.log([row["p_regressed"] for _, row in family]), settings.alpha)
    for (suite, row), regressed in zip(family, fallen, strict=True):
        row["regressed"] = bool(regressed)
        if regressed:
            suite["verdict"] = "reject"
            suite["reasons"].append(
                f"{suite['suite']}, {row['slice']}: regressed by more than {100 * wanted.margin:g} points "
                f"({_signed(row['change'])}, p = {row['p_regressed']:.2g}, Holm over {len(family)} slices)"
            )


def _judge(settings: GateSettings, one: Agreement, seed: int) -> dict[str, Any]:
    """Whether an independent judge agrees."""
    spoken = ~np.isnan(one.preferences)
    values = np.where(spoken, one.preferences, 0.0)[:, None]
    found = resampled_ratios(
        *by_cluster(values, spoken[:, None].astype(np.float64), one.clusters), seed=seed, resamples=settings.resamples
    )
    low, high = (_known(end) for end in interval(found, 1 - settings.alpha)[0])
    net, asked = _known(found.values[0]), len(spoken)
    bound = 0.0 if one.asked_for == "better" else 0.0 - one.margin
    verdict: Verdict = "hold"
    if one.trained_it:
        why = "the editor learnt from it, so it has no say"
    elif spoken.sum() < one.minimum or low is None or high is None:
        why = f"too few answers to decide, at least {one.minimum} are asked"
    elif low > bound:
        verdict, why = "promote", f"agrees, the interval lies above {_signed(bound)}"
    elif high < bound:
        verdict, why = "reject", f"disagrees, the interval lies below {_signed(bound)}"
    else:
        why = f"does not agree yet, the interval does not lie above {_signed(bound)}"
    return {
        "judge": one.judge, "asked_for": one.asked_for, "margin": one.margin, "counts": not one.trained_it,
        "verdict": verdict, "net_preference": net, "interval": [low, high], "tasks": asked,
        "missing": int(asked - spoken.sum()),
        "reason": f"judge {one.judge} prefers the new editor by {_signed(net)} of {asked} tasks, interval "
        f"{_signed(low)} to {_signed(high)}: {why}",
    }  # fmt: skip


def _share(right: NDArray[np.float64], inside: NDArray[np.float64]) -> float | None:
    return float((right * inside).sum() / inside.sum()) if inside.sum() > 0 else None


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _signed(value: float | None) -> str:
    """A difference of shares, in points of a hundred."""
    if value is None:
        return "not measured"
    points = f"{100 * value:+.1f}"
    return f"{'0.0' if points in ('+0.0', '-0.0') else points} points"

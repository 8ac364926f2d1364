"""A judge's figures on a suite, as published and with what makes them honest."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from components.suites.answers import Answers
from components.suites.ceiling import human_ceiling
from components.suites.correlation import correlations
from components.suites.editscore_bench import GROUPS
from components.suites.outcomes import Outcomes
from components.suites.ratios import Figure, Ratios
from components.suites.suite import ALL, AXIS_NAMES, LABELS, Suite
from components.suites.ties import Codes, Outcome
from components.suites.units import Found, Units, found_by, units_of
from infra.errors import EditLoopError

COUNTS = {
    "right": Outcome.RIGHT,
    "wrong": Outcome.WRONG,
    "human_ties": Outcome.HUMAN_TIE,
    "model_ties": Outcome.MODEL_TIE,
    "both_ties": Outcome.BOTH_TIES,
    "other_ties": Outcome.OTHER_TIE,
    "missing": Outcome.MISSING,
}
FIGURES = (
    "accuracy",
    "accuracy_answered",
    "accuracy_without_ties",
    "half_credit_accuracy",
    "tie_rate",
    "accuracy_held_out",
)


@dataclass(frozen=True)
class Evaluation:
    report: dict[str, Any]
    """JSON-able; a figure that cannot be measured is None."""
    outcomes: Outcomes
    """Unit by unit, for a gate; no units in a suite of correlations."""


def evaluate(suite: Suite, answers: Answers, *, seed: int = 0) -> Evaluation:
    """All figures of the answers; `seed` is that of the resampling and of the folds of held-out thresholds.

    `accuracy` is as published: a tie of the judge on a pair that people order is wrong, and so is a missing reply
    (`accuracy_answered` leaves those out). With scores and ties it is that of the threshold which is best on the suite
    itself; `threshold` has beside it the accuracy with thresholds chosen on other clusters. Two figures are of the
    pairs that people order, with equal scores alone as ties: `accuracy_without_ties`, C / (C + D + Tm), and
    `half_credit_accuracy`, where such a tie counts half. `intervals` has the 95 % interval of each.
    EditLoopError where verdicts meet a suite without pairs.
    """
    units = units_of(suite)
    report: dict[str, Any] = {
        "suite": suite.name,
        "suite_sha256": suite.sha256,
        "judge": answers.judge,
        "answers": "verdicts" if answers.verdicts is not None else "scores",
        "counting": suite.counting,
        "seed": seed,
        "accuracy": None,
        "ci95": None,
        "spearman": None,
        "counts": {"units": 0, "missing": 0},
        "missing_reasons": answers.reasons,
    }
    outcomes = _no_outcomes(suite)
    if len(units):
        found = found_by(units, answers, seed=seed)
        report |= _accuracies(units, found, seed)
        if answers.verdicts is not None:
            report["confusion"] = _confusion(units, answers)
        report["human_ceiling"] = human_ceiling(suite, seed=seed)
        outcomes = _outcomes(units, units.together(found.published))
    rated = [item for item in suite.items if item.ratings is not None and suite.counting in ("ties", "correlation")]
    if rated and answers.scores is not None:
        report["correlation"] = (told := correlations(rated, answers, seed=seed))
        report["spearman"] = told["spearman"]
        if not len(units):
            report |= {key: told[key] for key in ("ci95", "counts", "human_ceiling")}
    elif not len(units):
        raise EditLoopError(f"{suite.name} has no pairs to decide; it is measured by scores.")
    return Evaluation(report, outcomes)


def _accuracies(units: Units, found: Found, seed: int) -> dict[str, Any]:
    """The figures of the units."""
    published = units.together(found.published)
    slices, axes = np.array(units.slices), np.array(units.axes)
    ratios = Ratios(units.clusters)
    everything = np.ones(len(units), dtype=bool)
    columns = _columns(units, found, published)
    parts = {("", ""): everything}
    for task in np.unique(slices):
        parts["", str(task)] = slices == task
        parts |= {(str(axis), str(task)): (slices == task) & (axes == axis) for axis in np.unique(axes)}
    parts |= {(str(axis), ""): axes == axis for axis in np.unique(axes)}
    for (axis, task), inside in parts.items():
        for name in FIGURES if not axis else FIGURES[:1]:
            if name in columns:
                ratios.add(f"{name}|{axis}|{task}", columns[name][0] * inside, columns[name][1] * inside)
    ratios.resample(seed)
    tasks = [str(task) for task in np.unique(slices)]

    def figure(name: str, axis: str = "", some: list[str] = tasks) -> Figure:
        if name not in columns:
            return Figure(None, None)
        whole = not units.suite.mean_over_slices
        return ratios.mean([f"{name}|{axis}|"] if whole else [f"{name}|{axis}|{task}" for task in some])

    def table(values: Figure, inside: Any) -> dict[str, Any]:
        missing = int((published[inside] == Outcome.MISSING).sum())
        return {"accuracy": values.value, "ci95": values.ci95, "n": int(inside.sum()), "missing": missing}

    figures = {name: figure(name) for name in FIGURES}
    held_out = figures.pop("accuracy_held_out")
    threshold = None
    if found.threshold is not None:
        threshold = {
            "published": found.threshold,
            "accuracy_published": figures["accuracy"].value,
            "held_out": None if found.folds is None else float(np.median(found.folds)),
            "folds": None if found.folds is None else found.folds.tolist(),
            "accuracy_held_out": held_out.value,
            "ci95_held_out": held_out.ci95,
        }
    counts = {name: int((published == outcome).sum()) for name, outcome in COUNTS.items()}
    named = [task for task in tasks if task != ALL]
    report: dict[str, Any] = {name: one.value for name, one in figures.items()}
    report |= {
        "ci95": figures["accuracy"].ci95,
        "intervals": {name: one.ci95 for name, one in figures.items()},
        "accuracy_over_units": ratios.figure("accuracy||").value,
        "averaged_over": "tasks" if units.suite.mean_over_slices else "units",
        "counts": {"units": len(units), "clusters": len(set(units.clusters)), **counts},
        "threshold": threshold,
        "by_task": {task: table(ratios.figure(f"accuracy||{task}"), slices == task) for task in named},
        "by_axis": {axis: table(figure("accuracy", axis), axes == axis) for axis in AXIS_NAMES if (axes == axis).any()},
    }
    if units.suite.mean_over_slices:
        report["by_group"] = {
            group: table(figure("accuracy", "", some), np.isin(slices, some))
            for group, members in GROUPS.items()
            if (some := [task for task in tasks if task in members])
        }
    return report


def _columns(units: Units, found: Found, published: Codes) -> dict[str, tuple[Any, Any]]:
    """By figure: hits and counts of each unit, (N,)."""
    everything, answered = np.ones(len(units)), published != Outcome.MISSING
    human = np.ones(len(units), dtype=bool)
    human[units.unit[units.human == 0]] = False
    right = _right(published)
    judge_ties = np.isin(found.published, [Outcome.BOTH_TIES, Outcome.OTHER_TIE, Outcome.MODEL_TIE])
    ties = np.zeros(len(units), dtype=bool)
    ties[units.unit[judge_ties]] = True
    columns = {
        "accuracy": (right, everything),
        "accuracy_answered": (right, answered),
        "accuracy_without_ties": (_right(units.together(found.plain)) * human, human),
        "half_credit_accuracy": (units.credit(found.plain) * human, human),
        "tie_rate": (ties & answered, answered),
    }
    if found.held_out is not None:
        columns["accuracy_held_out"] = (_right(units.together(found.held_out)), everything)
    return columns


def _right(codes: Codes) -> Any:
    return np.isin(codes, [Outcome.RIGHT, Outcome.BOTH_TIES]).astype(np.float64)


def _confusion(units: Units, answers: Answers) -> dict[str, dict[str, int]]:
    """How often each verdict met each human word."""
    assert answers.verdicts is not None
    found: dict[str, dict[str, int]] = {
        human: dict.fromkeys((*LABELS, "missing"), 0) for human in LABELS if human in units.words
    }
    for key, human in zip(units.compared, units.words, strict=True):
        found[human][answers.verdicts.get(key) or "missing"] += 1
    return found


def _outcomes(units: Units, published: Codes) -> Outcomes:
    return Outcomes(
        suite=units.suite.name,
        keys=units.keys,
        clusters=units.clusters,
        slices=units.slices,
        right=_right(published),
        missing=published == Outcome.MISSING,
    )


def _no_outcomes(suite: Suite) -> Outcomes:
    return Outcomes(suite.name, (), (), (), np.zeros(0), np.zeros(0, dtype=bool))

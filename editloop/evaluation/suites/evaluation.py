"""Figures of a judge on a suite: as published, and with missing answers, ties and held-out thresholds made explicit."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from editloop.errors import EditLoopError
from editloop.evaluation.outcomes import Outcomes
from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.ceiling import human_ceiling
from editloop.evaluation.suites.correlation import correlation_report
from editloop.evaluation.suites.editscore_bench import GROUPS
from editloop.evaluation.suites.ratios import RatioEstimate, Ratios
from editloop.evaluation.suites.suite import ALL, AXIS_NAMES, LABELS, REVERSE, Suite
from editloop.evaluation.suites.ties import Codes, PairOutcome
from editloop.evaluation.suites.units import ComparisonOutcomes, Units, comparison_outcomes, suite_units

COUNTS = {
    "right": PairOutcome.RIGHT,
    "wrong": PairOutcome.WRONG,
    "human_ties": PairOutcome.HUMAN_TIE,
    "model_ties": PairOutcome.MODEL_TIE,
    "both_ties": PairOutcome.BOTH_TIES,
    "other_ties": PairOutcome.OTHER_TIE,
    "missing": PairOutcome.MISSING,
}
FIGURES = (
    "accuracy",
    "accuracy_as_published",
    "accuracy_by_overall",
    "accuracy_missing_wrong",
    "accuracy_answered",
    "accuracy_without_ties",
    "half_credit_accuracy",
    "tie_rate",
    "accuracy_held_out",
)
NOT_EVERYWHERE = ("accuracy_as_published", "accuracy_by_overall", "accuracy_missing_wrong")
"""Figures that only some suites, or some judges, have."""


@dataclass(frozen=True)
class Evaluation:
    """Result of evaluating a judge's answers to a suite."""

    report: dict[str, Any]
    """All figures, as JSON values. A figure that cannot be measured is None."""
    outcomes: Outcomes
    """Outcomes of the units, for a gate. Empty if the suite has no pairs."""


def evaluate(suite: Suite, answers: SuiteAnswers, *, seed: int = 0) -> Evaluation:
    """Compute all figures of a judge's answers.

    - `accuracy` is as published. A judge's tie on a pair that people order is wrong, and so is a missing answer;
      `accuracy_answered` leaves missing answers out. In a suite of both orders the publication leaves them out too;
      `accuracy_missing_wrong` has them as wrong.
    - `accuracy_as_published` is in place of it where publications count by an odder rule: EditReward-Bench's overall
      figure lets the threshold make ties in pairs that people call a tie, and nowhere else, so that no threshold costs
      anything. `accuracy` uses one threshold for all pairs.
    - `accuracy_by_overall` ranks by the judge's `overall` (EditReward's calibrated sum of ratings), where that is
      another number than the published score, `fused`, that all other figures rank by.
    - Where people could call a tie, scores that differ by no more than a threshold are a tie. `accuracy` uses the
      threshold that is best on the suite itself, or the publication's own (`Suite.tie_below`); `threshold` also has the
      accuracy with thresholds fitted to other clusters.
    - Items that the judge was not asked about are not measured; `left_out` counts them, by reason.
    - `by_sources` has the accuracy on items of one source and on those with reference images, where there are any.
    - `accuracy_without_ties` and `half_credit_accuracy` cover the pairs that people order, with only equal scores as
      ties. The first is C / (C + D + Tm), with C right orders, D wrong ones and Tm ties of the judge; in the second
      such a tie counts half.
    - `intervals` has the 95 % interval of each, by resampling whole clusters.

    Args:
        suite: The suite.
        answers: The judge's answers to it.
        seed: Seed of the resampling, and of the folds of the held-out thresholds.

    Raises:
        EditLoopError: The answers are verdicts, and the suite has no pairs, or the answers leave all of it out.

    Examples:
        >>> import editloop
        >>> from editloop.evaluation.suites.answers import SuiteAnswers
        >>> from pathlib import Path
        >>> suite = editloop.open_suite("genai-bench", None, labels=Path("labels.jsonl"))
        >>> verdicts = {"a": "left", "b": "right", "c": "left"}
        >>> answers = SuiteAnswers({"name": "our-judge", "version": "1"}, verdicts=verdicts)
        >>> evaluation = editloop.evaluate(suite, answers)
        >>> round(evaluation.report["accuracy"], 2)
        0.67
    """
    sha256, suite = suite.sha256, _measured(suite, answers)
    units = suite_units(suite)
    report: dict[str, Any] = {
        "suite": suite.name,
        "suite_sha256": sha256,
        "judge": answers.judge,
        "answers": "verdicts" if answers.verdicts is not None else "scores",
        "counting": suite.counting,
        "seed": seed,
        "accuracy": None,
        "ci95": None,
        "spearman": None,
        "counts": {"units": 0, "missing": 0},
        "missing_reasons": answers.reasons,
        "left_out": dict(Counter(answers.left_out.values())),
    }
    outcomes = _outcomes(units, np.zeros(0, dtype=np.int64))
    if len(units):
        comparisons = comparison_outcomes(units, answers, seed=seed)
        others = _by_overall(answers)
        by_overall = comparison_outcomes(units, others, seed=seed) if others else None
        report |= _accuracies(units, comparisons, by_overall, seed)
        if answers.verdicts is not None:
            report["confusion"] = _confusion(units, answers)
        report["human_ceiling"] = human_ceiling(suite, seed=seed)
        outcomes = _outcomes(units, units.unit_outcomes(comparisons.published))
    rated = [item for item in suite.items if item.ratings is not None and suite.counting in ("ties", "correlation")]
    if rated and answers.scores is not None:
        report["correlation"] = (correlation := correlation_report(rated, answers, seed=seed))
        report["spearman"] = correlation["spearman"]
        if others := _by_overall(answers):
            correlation["by_overall"] = correlation_report(rated, others, seed=seed)["spearman"]
        if not len(units):
            report |= {key: correlation[key] for key in ("ci95", "counts", "human_ceiling")}
    elif not len(units):
        raise EditLoopError(f"{suite.name} has no pairs to decide; it is measured by scores.")
    return Evaluation(report, outcomes)


def _measured(suite: Suite, answers: SuiteAnswers) -> Suite:
    """The suite without the items that are left out, and for scores without the comparisons of the other order."""
    items = [item for item in suite.items if item.key not in answers.left_out]
    if not items:
        raise EditLoopError(f"{suite.name}: the answers leave all of it out; nothing is measured.")
    if suite.both_orders and answers.verdicts is None:
        items = [
            replace(item, comparisons=tuple(pair for pair in item.comparisons if not pair.key.endswith(REVERSE)))
            for item in items
        ]
    return replace(suite, items=tuple(items))


def _by_overall(answers: SuiteAnswers) -> SuiteAnswers | None:
    """The answers with the judge's `overall` as scores; None where these are no other numbers."""
    return None if answers.overall is None else replace(answers, scores=answers.overall)


def _accuracies(
    units: Units, comparisons: ComparisonOutcomes, by_overall: ComparisonOutcomes | None, seed: int
) -> dict[str, Any]:
    """The part of the report about units: accuracies, their slices and intervals, counts, threshold."""
    published = units.unit_outcomes(comparisons.published)
    slices, axes = np.array(units.slices), np.array(units.axes)
    ratios = Ratios(units.clusters)
    everything = np.ones(len(units), dtype=bool)
    columns = _columns(units, comparisons, published)
    if by_overall is not None:
        columns["accuracy_by_overall"] = (_right_shares(units.unit_outcomes(by_overall.published)), everything)
    parts = {("", ""): everything}
    for task in np.unique(slices):
        parts["", str(task)] = slices == task
        parts |= {(str(axis), str(task)): (slices == task) & (axes == axis) for axis in np.unique(axes)}
    parts |= {(str(axis), ""): axes == axis for axis in np.unique(axes)}
    one_source: Any = units.one_source
    sources = {} if one_source.all() else {"one source": one_source, "several sources": ~one_source}
    parts |= {(name, ""): inside for name, inside in sources.items()}
    for (axis, task), inside in parts.items():
        for name in FIGURES if not axis else FIGURES[:1]:
            if name in columns:
                ratios.add(f"{name}|{axis}|{task}", columns[name][0] * inside, columns[name][1] * inside)
    ratios.resample(seed)
    tasks = [str(task) for task in np.unique(slices)]

    def figure(name: str, axis: str = "", group_tasks: list[str] = tasks) -> RatioEstimate:
        if name not in columns:
            return RatioEstimate(None, None)
        over_units = not units.suite.mean_over_slices
        return ratios.mean([f"{name}|{axis}|"] if over_units else [f"{name}|{axis}|{task}" for task in group_tasks])

    def table(values: RatioEstimate, inside: Any) -> dict[str, Any]:
        missing = int((published[inside] == PairOutcome.MISSING).sum())
        return {"accuracy": values.value, "ci95": values.ci95, "n": int(inside.sum()), "missing": missing}

    figures = {name: figure(name) for name in FIGURES if name in columns or name not in NOT_EVERYWHERE}
    held_out = figures.pop("accuracy_held_out")
    threshold = None
    if comparisons.threshold is not None:
        threshold = {
            "published": comparisons.threshold,
            "fitted": units.suite.tie_below is None,
            "accuracy_published": figures["accuracy"].value,
            "held_out": None if comparisons.folds is None else float(np.median(comparisons.folds)),
            "folds": None if comparisons.folds is None else comparisons.folds.tolist(),
            "accuracy_held_out": held_out.value,
            "ci95_held_out": held_out.ci95,
        }
    counts = {name: int((published == outcome).sum()) for name, outcome in COUNTS.items()}
    named = [task for task in tasks if task != ALL]
    report: dict[str, Any] = {name: estimate.value for name, estimate in figures.items()}
    report |= {
        "ci95": figures["accuracy"].ci95,
        "intervals": {name: estimate.ci95 for name, estimate in figures.items()},
        "accuracy_over_units": ratios.figure("accuracy||").value,
        "averaged_over": "tasks" if units.suite.mean_over_slices else "units",
        "counts": {"units": len(units), "clusters": len(set(units.clusters)), **counts},
        "threshold": threshold,
        "by_task": {task: table(ratios.figure(f"accuracy||{task}"), slices == task) for task in named},
        "by_axis": {axis: table(figure("accuracy", axis), axes == axis) for axis in AXIS_NAMES if (axes == axis).any()},
    }
    if sources:
        report["by_sources"] = {
            name: table(ratios.figure(f"accuracy|{name}|"), inside) for name, inside in sources.items()
        }
    if units.suite.mean_over_slices:
        report["by_group"] = {
            group: table(figure("accuracy", "", group_tasks), np.isin(slices, group_tasks))
            for group, members in GROUPS.items()
            if (group_tasks := [task for task in tasks if task in members])
        }
    return report


def _columns(units: Units, comparisons: ComparisonOutcomes, published: Codes) -> dict[str, tuple[Any, Any]]:
    """Hits and counts of the units, (N,) each, by figure."""
    everything, answered = np.ones(len(units)), published != PairOutcome.MISSING
    human = np.ones(len(units), dtype=bool)
    human[units.unit[units.human == 0]] = False
    right = _right_shares(published)
    judge_ties = np.isin(comparisons.published, [PairOutcome.BOTH_TIES, PairOutcome.OTHER_TIE, PairOutcome.MODEL_TIE])
    ties = np.zeros(len(units), dtype=bool)
    ties[units.unit[judge_ties]] = True
    columns = {
        "accuracy": (right, answered if units.suite.both_orders else everything),
        "accuracy_answered": (right, answered),
        "accuracy_without_ties": (_right_shares(units.unit_outcomes(comparisons.plain)) * human, human),
        "half_credit_accuracy": (units.credit(comparisons.plain) * human, human),
        "tie_rate": (ties & answered, answered),
    }
    if units.suite.both_orders:
        columns["accuracy_missing_wrong"] = (right, everything)
    if units.suite.counting == "groups" and comparisons.threshold is not None:
        odd = np.where(units.human == 0, comparisons.published, comparisons.plain)
        columns["accuracy_as_published"] = (_right_shares(units.unit_outcomes(odd)), everything)
    if comparisons.held_out is not None:
        columns["accuracy_held_out"] = (_right_shares(units.unit_outcomes(comparisons.held_out)), everything)
    return columns


def _right_shares(codes: Codes) -> Any:
    return np.isin(codes, [PairOutcome.RIGHT, PairOutcome.BOTH_TIES]).astype(np.float64)


def _confusion(units: Units, answers: SuiteAnswers) -> dict[str, dict[str, int]]:
    """Number of pairs, by human label, then by verdict or `missing`."""
    assert answers.verdicts is not None
    counts: dict[str, dict[str, int]] = {
        human: dict.fromkeys((*LABELS, "missing"), 0) for human in LABELS if human in units.words
    }
    for key, human in zip(units.comparison_keys, units.words, strict=True):
        counts[human][answers.verdicts.get(key) or "missing"] += 1
    return counts


def _outcomes(units: Units, published: Codes) -> Outcomes:
    return Outcomes(
        suite=units.suite.name,
        keys=units.keys,
        clusters=units.clusters,
        slices=units.slices,
        right=_right_shares(published),
        missing=published == PairOutcome.MISSING,
    )

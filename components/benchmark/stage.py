"""The benchmark stage: measure a reward model on the suites of its gate, and compare it with the champion."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.benchmark.declaration import BenchmarkParameters
from editloop.content import complete_folder, read_manifest, write_json
from editloop.datasets.preference_groups import PreferenceGroup, read_groups
from editloop.errors import EditLoopError
from editloop.evaluation.gates.decision import SuiteMeasurement, decide
from editloop.evaluation.gates.page import gate_page
from editloop.evaluation.gates.requirements import (
    Requirement,
    baseline_requirement,
    unmeasured_baseline,
    within_editor_requirement,
)
from editloop.evaluation.gates.settings import DATASET_SUITES, GateSettings, read_gate
from editloop.evaluation.outcomes import Outcomes, shared_outcomes
from editloop.evaluation.suites.answers import SuiteAnswers, judge_suite
from editloop.evaluation.suites.evaluation import Evaluation, evaluate
from editloop.evaluation.suites.faults import NothingToMeasureError
from editloop.evaluation.suites.opening import open_suite
from editloop.evaluation.suites.page import write_evaluation
from editloop.evaluation.suites.suite import Suite
from editloop.evaluation.untrained import UntrainedModel, is_judge, open_untrained
from editloop.evaluation.within_editor import WithinEditor, measure_within_editors
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import open_judge
from editloop.work_dir import work_dir

log = logging.getLogger("editloop.components.benchmark")
HELDOUT = "heldout"
"""The suite on which order within an editor's samples and the untrained model are measured."""


@dataclass(frozen=True)
class Contender:
    """A model that the new one is compared with."""

    judge: Judge | None
    """None for a base that is no judge yet (a plain vision-language model). It counts as right half the time."""
    name: str
    """What the model is, in words for the verdict."""


def run_benchmark(dataset: Path, model: Path, output: Path, parameters: BenchmarkParameters) -> dict[str, float]:
    """Judge the suites of a gate with `model` and decide whether it may replace `champion` (or, without one, its base).

    A base that is no judge yet counts as right half the time. Beside both, the untrained model with which the line of
    trainings began judges the held-out pairs. A call that was stopped resumes where it was.

    Args:
        dataset: Dataset folder. The suites `heldout` and `scenes` are its test split.
        model: Folder of a reward model of any kind.
        output: Folder to write: `benchmark.json` (figures), `gate.json` (verdict), `page.html`, and for each suite
            `suites/NAME` with its report and the raw answers.
        parameters: The stage's parameters.

    Returns:
        The figures of `benchmark.json` that are numbers.

    Raises:
        EditLoopError: The gate, a suite or the untrained model that the gate names is faulty. Nothing is judged then.
    """
    settings, manifest, facts = read_gate(parameters.gate), read_manifest(model, check=True), read_manifest(dataset)
    judge = open_judge(str(model))
    suites = _open_suites(settings, dataset)
    base, old = _contenders(manifest, judge, parameters.champion)
    groups, untrained = _held_out_groups(settings, dataset), _untrained(settings, manifest, suites)
    answers_folder = work_dir(output) / "answers"
    with complete_folder(output, {"model_sha256": manifest["sha256"], "dataset_sha256": facts["sha256"]}) as out:
        new, of_base, of_old = (
            {
                name: _evaluate_suite(suite, judged, answers_folder, folder and folder / name, parameters.seed)
                for name, suite in suites.items()
            }
            for judged, folder in ((judge, out / "suites"), (base.judge, None), (old.judge, None))
        )
        judged = (
            _evaluate_suite(suites[HELDOUT], untrained.judge, answers_folder, None, parameters.seed)
            if isinstance(untrained, UntrainedModel)
            else None
        )
        requirements = {
            "within_editor": _within_editor(settings, new, of_old, groups, parameters.seed),
            "baseline": _baseline(settings, new, of_old, judged, untrained, parameters.seed),
        }
        report = _figures(dataset, new, of_base, groups, parameters.seed) | _baseline_figures(judged)
        verdict = _verdict(settings, manifest["sha256"], new, of_old, old, requirements, parameters.seed)
        verdict["data"] = _gate_data(settings, facts["sha256"], new, judge, old, untrained)
        write_json(out / "benchmark.json", report)
        write_json(out / "gate.json", verdict)
        (out / "page.html").write_text(gate_page(f"Benchmark of {judge.name}", verdict, {"Figures": report}))
    return {name: float(value) for name, value in report.items() if isinstance(value, int | float)}


@dataclass(frozen=True)
class JudgedSuite:
    """A judge's answers to a suite, and their evaluation. Both are None for a base that is no judge."""

    suite: Suite
    answers: SuiteAnswers | None
    evaluation: Evaluation | None

    def outcomes(self, like: Outcomes) -> Outcomes:
        """Return the outcomes by unit. Without a judge, every unit of `like` counts as half right.

        Args:
            like: Outcomes of another judge on the same suite.
        """
        if self.evaluation:
            return self.evaluation.outcomes
        return Outcomes(
            like.suite, like.keys, like.clusters, like.slices, np.full(len(like), 0.5), np.zeros(len(like), bool)
        )

    @property
    def left_out(self) -> frozenset[str]:
        """Keys of the items that the judge was not asked about."""
        return frozenset(self.answers.left_out if self.answers else ())

    def figure(self, name: str) -> Any:
        """Return a figure of the report. Without a judge, accuracy is 0.5 and every other figure is None.

        Args:
            name: Key of the report.
        """
        if self.evaluation is None:
            return 0.5 if name == "accuracy" else None
        return self.evaluation.report[name]


def _open_suites(settings: GateSettings, dataset: Path) -> dict[str, Suite]:
    """Open the gate's suites, by name. One that is not required is left out where there is nothing to measure, or its
    data is not on this machine."""
    suites = {}
    for suite_gate in settings.suites:
        if not suite_gate.data and suite_gate.suite not in DATASET_SUITES:
            raise EditLoopError(f"gate {settings.name}: suite {suite_gate.suite} has no data; name its folder.")
        data = Path(suite_gate.data) if suite_gate.data else dataset
        try:
            if not suite_gate.required and not data.exists():
                raise NothingToMeasureError(f"{data} does not exist")
            suites[suite_gate.suite] = open_suite(suite_gate.suite, data)
        except NothingToMeasureError as error:
            if suite_gate.required:
                raise
            log.warning("%s: left out, it has no say (%s)", suite_gate.suite, error)
    return suites


def _contenders(manifest: Mapping[str, Any], judge: Judge, champion: str) -> tuple[Contender, Contender]:
    """Return the base that the model was trained from, and the model to beat: the champion, or else that base."""
    from editloop.lineage.registry import resolve_model

    base_address = str(manifest["facts"]["base"])
    base = Contender(
        open_judge(base_address) if is_judge(base_address) else None,
        f"its base {base_address}, there being no champion",
    )
    champion = champion or f"models:/{judge.name}@champion"
    folder = resolve_model(champion)
    return base, base if folder is None else Contender(open_judge(str(folder)), champion)


def _evaluate_suite(
    suite: Suite, judge: Judge | None, answers_folder: Path, report_folder: Path | None, seed: int
) -> JudgedSuite:
    """Judge a whole suite. Raw answers are kept below `answers_folder`, where a retry finds them.

    With a `report_folder`, the answers and the report are written there too.
    """
    if judge is None:
        return JudgedSuite(suite, None, None)
    folder = answers_folder / judge.version[:16]
    answers = judge_suite(suite, judge, folder)
    evaluation = evaluate(suite, answers, seed=seed)
    if report_folder is not None:
        shutil.copytree(folder, report_folder)
        write_evaluation(evaluation, report_folder)
    return JudgedSuite(suite, answers, evaluation)


def _verdict(
    settings: GateSettings,
    sha256: str,
    new: Mapping[str, JudgedSuite],
    old: Mapping[str, JudgedSuite],
    against: Contender,
    requirements: Mapping[str, Requirement],
    seed: int,
) -> dict[str, Any]:
    """Return the content of gate.json, but for its `data`.

    Models of two kinds are compared on what both were asked: one may have no score of a suite's dimension.
    """
    if against.judge is not None and against.judge.version == sha256:
        return {"verdict": "promote", "reasons": ["this model is the champion already."], "against": against.name}
    measured = []
    for gate in settings.suites:
        if gate.suite in new:
            evaluation = new[gate.suite].evaluation
            assert evaluation is not None  # the new model is a judge
            if not len(evaluation.outcomes):
                continue  # correlations alone: in the figures
            pair = evaluation.outcomes, old[gate.suite].outcomes(evaluation.outcomes)
            if new[gate.suite].left_out != old[gate.suite].left_out:
                pair = shared_outcomes(*pair)
            measured.append(SuiteMeasurement(gate, *pair))
    return decide(settings, measured, requirements=requirements, against=against.name, seed=seed)


def _held_out_groups(settings: GateSettings, dataset: Path) -> Sequence[PreferenceGroup]:
    """The tasks of the held-out suite with their candidates, as experts rated them; none where the gate lacks it."""
    folders = [Path(gate.data) if gate.data else dataset for gate in settings.suites if gate.suite == HELDOUT]
    return read_groups(folders[0], "test") if folders else []


def _untrained(
    settings: GateSettings, manifest: Mapping[str, Any], suites: Mapping[str, Suite]
) -> UntrainedModel | str:
    """The untrained model that the gate names, or else that of the model's line of trainings; the reason where that is
    not on this machine or cannot judge."""
    if HELDOUT not in suites:
        return f"gate {settings.name} has no suite {HELDOUT}"
    if settings.baseline.base:
        return open_untrained(settings.baseline.base)
    try:
        return open_untrained(str(manifest["facts"]["base"]))
    except EditLoopError as error:
        log.warning("no untrained model to compare with: %s", error)
        return str(error).rstrip(".")


def _within_editor(
    settings: GateSettings,
    new: Mapping[str, JudgedSuite],
    old: Mapping[str, JudgedSuite],
    groups: Sequence[PreferenceGroup],
    seed: int,
) -> Requirement:
    """What the gate says of the order among one editor's samples, by the experts' ratings."""

    def measured(of: Mapping[str, JudgedSuite]) -> WithinEditor:
        if HELDOUT not in of:
            return WithinEditor(None, None, 0, 0)
        judged, level = of[HELDOUT], 1 - settings.alpha
        return measure_within_editors(judged.suite, groups, judged.answers, "experts", seed=seed, level=level)

    return within_editor_requirement(settings, measured(new), measured(old))


def _baseline(
    settings: GateSettings,
    new: Mapping[str, JudgedSuite],
    old: Mapping[str, JudgedSuite],
    judged: JudgedSuite | None,
    untrained: UntrainedModel | str,
    seed: int,
) -> Requirement:
    """What the gate says of the gain over the untrained model, which has `judged` the held-out pairs."""
    if judged is None or isinstance(untrained, str):
        return unmeasured_baseline(settings, str(untrained))
    evaluation = new[HELDOUT].evaluation
    assert evaluation is not None  # the new model is a judge
    outcomes = evaluation.outcomes
    of_old, of_untrained = old[HELDOUT].outcomes(outcomes), judged.outcomes(outcomes)
    return baseline_requirement(settings, outcomes, of_old, of_untrained, untrained.name, seed)


def _baseline_figures(judged: JudgedSuite | None) -> dict[str, Any]:
    """The untrained model's figures for benchmark.json."""
    if judged is None:
        return {"accuracy_labels_untrained": None}
    return {
        "accuracy_labels_untrained": judged.figure("accuracy"),
        "accuracy_labels_untrained_ci95": judged.figure("ci95"),
    }


def _gate_data(
    settings: GateSettings,
    dataset_sha256: str,
    new: Mapping[str, JudgedSuite],
    judge: Judge,
    old: Contender,
    untrained: UntrainedModel | str,
) -> dict[str, Any]:
    """What the gate decided on, for the record: the suites with their content, the dataset, and all models."""
    judges = {"new": judge, "old": old.judge, "untrained": None if isinstance(untrained, str) else untrained.judge}
    return {
        "dataset_sha256": dataset_sha256,
        "suites": [
            {
                "suite": gate.suite,
                "required": gate.required,
                "folder": gate.data,
                "sha256": new[gate.suite].suite.sha256,
                "units": new[gate.suite].figure("counts")["units"],
            }
            for gate in settings.suites
            if gate.suite in new
        ],
        "judges": {
            role: {"name": model.name, "version": model.version} for role, model in judges.items() if model is not None
        },
    }


def _figures(
    dataset: Path,
    new: Mapping[str, JudgedSuite],
    base: Mapping[str, JudgedSuite],
    groups: Sequence[PreferenceGroup],
    seed: int,
) -> dict[str, Any]:
    """Return the content of benchmark.json: key figures of the model and its base; None where not measured."""
    report: dict[str, Any] = {}
    if HELDOUT in new:
        judged = new[HELDOUT]
        report |= {
            "accuracy_labels": judged.figure("accuracy"),
            "accuracy_labels_ci95": judged.figure("ci95"),
            "accuracy_labels_base": base[HELDOUT].figure("accuracy"),
            "pairs": judged.figure("counts")["units"],
            "groups": len(judged.suite.items),
            "missing": judged.figure("counts")["missing"],
        }
        within, of_base = (
            measure_within_editors(judged.suite, groups, answers, "experts", seed=seed)
            for answers in (judged.answers, base[HELDOUT].answers)
        )
        report |= {
            "within_editor": within.correlation,
            "within_editor_ci95": within.interval,
            "within_editor_groups": within.groups,
            "within_editor_base": of_base.correlation,
        }
    if "scenes" in new:
        judged, drawn = new["scenes"], read_groups(dataset, "test")
        report |= {
            "accuracy_oracle": judged.figure("accuracy"),
            "ci95": judged.figure("ci95"),
            "accuracy_base": base["scenes"].figure("accuracy"),
            "clear_pairs": judged.figure("counts")["units"],
            "within_editor_oracle": measure_within_editors(
                judged.suite, drawn, judged.answers, "oracle", seed=seed
            ).correlation,
        }
    for name, judged in new.items():
        if name not in DATASET_SUITES:
            figure = "spearman" if judged.suite.counting == "correlation" else "accuracy"
            report |= {f"{figure}_{name}": judged.figure(figure), f"ci95_{name}": judged.figure("ci95")}
    return report

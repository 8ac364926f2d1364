"""What a gate can ask beside its suites: order within one editor's samples, and a gain over the untrained model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.gates.decision import SuiteMeasurement, decide
from editloop.evaluation.gates.page import gate_page
from editloop.evaluation.gates.requirements import (
    Requirement,
    baseline_requirement,
    unmeasured_baseline,
    within_editor_requirement,
)
from editloop.evaluation.gates.settings import GateSettings, read_gate
from editloop.evaluation.outcomes import Outcomes
from editloop.evaluation.within_editor import WithinEditor
from editloop.statistics.bootstrap import ratio_interval
from tests.gate_outcomes import GATE, outcomes

OLD = WithinEditor(0.1, [0.0, 0.2], 40, 0)


def gate(**keys: Any) -> GateSettings:
    return GateSettings.model_validate(GATE.model_dump() | keys)


def decided(settings: GateSettings, **requirements: Requirement) -> dict[str, Any]:
    """A gate's decision on a model that is better on the suite."""
    better, worse = outcomes([1] * 90 + [0] * 10), outcomes([1] * 50 + [0] * 50)
    measured = [SuiteMeasurement(settings.suites[0], better, worse)]
    return decide(settings, measured, requirements=requirements, against="the champion")


@pytest.mark.parametrize(
    ("interval", "groups", "verdict", "why"),
    [
        ([0.21, 0.5], 30, "promote", "the interval lies above 0.20"),
        ([0.2, 0.5], 30, "hold", "the interval does not lie above 0.20; more data would decide"),
        ([0.1, 0.5], 30, "hold", "the interval does not lie above 0.20; more data would decide"),
        ([0.0, 0.2], 30, "hold", "the interval does not lie above 0.20; more data would decide"),
        ([-0.1, 0.19], 30, "reject", "the interval lies below 0.20"),
        ([0.21, 0.5], 29, "hold", "too few to decide, at least 30 are asked"),
        ([-0.1, 0.1], 29, "hold", "too few to decide, at least 30 are asked"),
        (None, 30, "hold", "one source alone has no interval"),
    ],
)
def test_order_within_an_editor_is_decided_by_its_interval(
    interval: list[float] | None, groups: int, verdict: str, why: str
) -> None:
    settings = gate(within_editor={"least": 0.2, "minimum": 30})
    found = within_editor_requirement(settings, WithinEditor(0.3, interval, groups, 2), OLD)
    assert (found["verdict"], found["required"], found["units"], found["missing"]) == (verdict, True, groups, 2)
    assert why in found["reason"]
    assert "0.30 (old 0.10)" in found["reason"]
    result = decided(settings, within_editor=found)
    assert result["verdict"] == verdict
    assert any(why in reason for reason in result["reasons"])
    assert "reason" not in result["requirements"]["within_editor"]


def test_without_the_key_the_correlation_is_shown_and_decides_nothing() -> None:
    found = within_editor_requirement(gate(), WithinEditor(-0.9, [-1.0, -0.8], 100, 0), OLD)
    result = decided(gate(), within_editor=found)
    assert result["verdict"] == "promote"
    assert "-0.90 (old 0.10)" in result["reasons"][-1]
    assert result["reasons"][-1].endswith("(shown, without a say).")


def test_a_gate_that_asks_for_it_holds_where_nothing_was_measured() -> None:
    found = within_editor_requirement(
        gate(within_editor={"least": 0.2}), WithinEditor(None, None, 0, 7), WithinEditor(None, None, 0, 0)
    )
    assert (found["verdict"], decided(gate(), within_editor=found)["verdict"]) == ("hold", "hold")
    assert "not measured (old not measured), interval not measured, on 0 groups" in found["reason"]


def test_the_gain_over_the_untrained_model_is_paired() -> None:
    """New 90, old 80 and untrained 50 of 100; the interval is that of the paired difference, 40 of 100."""
    new, old, untrained = (outcomes([1] * right + [0] * (100 - right)) for right in (90, 80, 50))
    settings = gate(baseline={"least_gain": 0.2, "minimum": 100})
    found = baseline_requirement(settings, new, old, untrained, "Qwen2.5-VL", seed=0)
    assert found["figures"] == {"new": 0.9, "old": 0.8, "untrained": 0.5}
    # clusters are counted in the order of their names
    order = sorted(range(100), key=lambda n: new.clusters[n])
    change = (new.right - untrained.right)[order]
    _, low, high = ratio_interval(change, np.ones(100), seed=0)
    assert found["intervals"]["new"] == pytest.approx([low, high])
    assert found["intervals"]["old"] != found["intervals"]["new"]
    assert (found["verdict"], found["units"]) == ("promote", 100)
    assert "+40.0 points over the untrained Qwen2.5-VL" in found["reason"]


@pytest.mark.parametrize(
    ("least_gain", "minimum", "verdict"),
    [(0.2, 100, "promote"), (0.35, 100, "hold"), (0.6, 100, "reject"), (0.2, 101, "hold"), (0.6, 101, "hold")],
)
def test_a_least_gain_is_decided_by_its_interval(least_gain: float, minimum: int, verdict: str) -> None:
    new, untrained = outcomes([1] * 90 + [0] * 10), outcomes([1] * 50 + [0] * 50)
    settings = gate(baseline={"least_gain": least_gain, "minimum": minimum})
    found = baseline_requirement(settings, new, new, untrained, "base", seed=0)
    assert (found["verdict"], found["required"]) == (verdict, True)
    assert decided(settings, baseline=found)["verdict"] == verdict


def test_without_a_least_gain_the_untrained_model_is_shown() -> None:
    new, untrained = outcomes([0] * 60), outcomes([1] * 50 + [0] * 10, missing=[False] * 55 + [True] * 5)
    found = baseline_requirement(gate(), new, new, untrained, "base", seed=0)
    assert (found["required"], found["bound"], found["minimum"], found["missing"]) == (False, None, None, 5)
    assert decided(gate(), baseline=found)["verdict"] == "promote"
    gone = unmeasured_baseline(gate(), "not here")
    assert (gone["required"], gone["minimum"], gone["units"], gone["missing"]) == (False, None, 0, 0)
    assert decided(gate(), baseline=unmeasured_baseline(gate(), "not here"))["verdict"] == "promote"


def test_an_untrained_model_that_is_not_here_holds_a_gate_that_asks_for_a_gain() -> None:
    settings = gate(baseline={"least_gain": 0.1})
    gone = unmeasured_baseline(settings, "base x: no such model")
    assert (gone["required"], gone["bound"], gone["minimum"]) == (True, 0.1, 50)
    result = decided(settings, baseline=gone)
    assert result["verdict"] == "hold"
    assert result["reasons"][-1] == "the untrained backbone was not measured: base x: no such model."


def test_outcomes_are_paired_by_their_units() -> None:
    new = outcomes([1] * 50 + [0] * 50)
    places = list(range(100))[::-1]
    turned = Outcomes(
        new.suite,
        tuple(new.keys[n] for n in places),
        tuple(new.clusters[n] for n in places),
        new.slices,
        new.right[places],
        new.missing,
    )
    found = baseline_requirement(gate(), new, turned, turned, "itself", seed=0)
    assert found["intervals"] == {"new": [0.0, 0.0], "old": [0.0, 0.0]}


def test_the_page_has_all_three_models_and_the_data() -> None:
    new, old, untrained = (outcomes([1] * right + [0] * (100 - right)) for right in (90, 80, 50))
    settings = gate(baseline={"least_gain": 0.2}, within_editor={"least": 0.2})
    result = decided(
        settings,
        within_editor=within_editor_requirement(settings, WithinEditor(0.375, [0.3, 0.45], 64, 3), OLD),
        baseline=baseline_requirement(settings, new, old, untrained, "<base>", seed=0),
    )
    suites = [{"suite": "heldout", "required": True, "folder": "", "sha256": "5" * 64, "units": 100}]
    judges = {"new": {"name": "edit-reward", "version": "7" * 64}}
    result["data"] = {"dataset_sha256": "d" * 64, "suites": suites, "judges": judges}
    page = gate_page("Benchmark", result)
    for text in ("0.375", "0.300 to 0.450", "64 groups", "3 without an answer", "Asked: the interval of the new model"):
        assert text in page
    for text in ("untrained: &lt;base&gt;", "90.0 %", "80.0 %", "50.0 %", "d" * 12, "5" * 12, "edit-reward"):
        assert text in page
    assert "<base>" not in page
    assert "Not measured." in gate_page("B", decided(gate(), baseline=unmeasured_baseline(gate(), "not here")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("within_editor: {minimum: 30}", "within_editor.least"),
        ("within_editor: {least: 1.0}", "within_editor.least"),
        ("within_editor: {least: 0.2, minimum: 0}", "within_editor.minimum"),
        ("within_editor: {least: 0.2, groups: 3}", "within_editor.groups"),
        ("baseline: {least_gain: 2}", "baseline.least_gain"),
        ("baseline: {gain: 0.1}", "baseline.gain"),
    ],
)
def test_a_wrong_key_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "ours.yaml"
    path.write_text(f"name: ours\nsuites: [{{suite: heldout}}]\n{text}\n")
    with pytest.raises(EditLoopError) as refused:
        read_gate(str(path))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value).strip()

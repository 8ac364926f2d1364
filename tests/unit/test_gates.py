"""Gates: intervals that cover, tests against scipy, verdicts with reasons, slices, other judges, files with faults."""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from components.gates.bootstrap import by_cluster, chance_above, interval, ratio_interval, resampled_ratios
from components.gates.calibration import calibrate, table
from components.gates.decision import Agreement, Measured, decide
from components.gates.mcnemar import mcnemar
from components.gates.page import gate_page
from components.gates.settings import GateSettings, Slices, SuiteGate, read_gate
from components.suites.outcomes import Outcomes, paired
from infra.errors import EditLoopError

GATE = GateSettings(name="test", suites=(SuiteGate(suite="heldout", minimum=20),), slices=Slices(minimum=10))


def outcomes(right, clusters=None, slices=None, missing=None) -> Outcomes:
    count = len(right)
    return Outcomes(
        "heldout",
        tuple(f"unit {place}" for place in range(count)),
        tuple(clusters or (f"task {place}" for place in range(count))),
        tuple(slices or ("recolour",) * count),
        np.array(right, dtype=float),
        np.array(missing if missing is not None else [False] * count),
    )


def verdict(new, old, gate=GATE, **options):
    return decide(gate, [Measured(gate.suites[0], new, old)], against="the champion", **options)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(300):
        counts = rng.integers(1, 10, 25).astype(float)
        right = rng.binomial(counts.astype(int), 0.7).astype(float)
        _, low, high = ratio_interval(right, counts, seed=trial, resamples=400)
        covered += low <= 0.7 <= high
    assert 0.92 <= covered / 300 <= 0.98


def test_clusters_are_drawn_whole_so_that_copies_of_a_unit_do_not_narrow_the_interval():
    rng = np.random.default_rng(1)
    right = rng.integers(0, 2, 60).astype(float)
    names = [f"task {place}" for place in range(60)]
    once = by_cluster(right[:, None], np.ones((60, 1)), names)
    ten_times = by_cluster(np.repeat(right, 10)[:, None], np.ones((600, 1)), np.repeat(names, 10).tolist())
    assert interval(resampled_ratios(*once))[0] == pytest.approx(interval(resampled_ratios(*ten_times))[0])


def test_all_slices_of_a_resample_are_of_the_same_draws():
    hits, counts = np.array([[1.0, 1], [0, 0], [1, 1]]), np.ones((3, 2))
    found = resampled_ratios(hits, counts, resamples=50)
    assert found.draws[:, 0].tolist() == found.draws[:, 1].tolist()
    assert found.values.tolist() == pytest.approx([2 / 3, 2 / 3])


def test_what_rests_on_one_cluster_or_none_has_no_interval():
    found = resampled_ratios(np.array([[1.0, 0], [0, 0]]), np.array([[1.0, 0], [0, 0]]))
    assert np.isnan(interval(found)).all()
    assert chance_above(found, 0.0).tolist() == [1, 1]
    assert all(math.isnan(value) for value in ratio_interval(np.zeros(3), np.zeros(3)))


def test_the_chance_says_what_the_interval_says():
    rng = np.random.default_rng(2)
    found = resampled_ratios(rng.normal(-0.2, 1, (40, 30)), np.ones((40, 30)))
    for (_, high), chance in zip(interval(found, 0.9), chance_above(found, 0.0), strict=True):
        assert (high < 0) == (chance < 0.05) or abs(chance - 0.05) < 0.01


def test_mcnemar_is_the_exact_binomial_on_what_only_one_got_right():
    new = np.array([1.0] * 30 + [1] * 12 + [0] * 4 + [0] * 10)
    old = np.array([1.0] * 30 + [0] * 12 + [1] * 4 + [0] * 10)
    assert mcnemar(new, old) == pytest.approx(binomtest(12, 16, 0.5, alternative="greater").pvalue)
    assert mcnemar(new, new) == 1.0
    assert mcnemar(new * 0.5, old) is None


def test_better_is_promoted_worse_rejected_and_equal_held():
    good, poor = outcomes([1] * 90 + [0] * 10), outcomes([1] * 50 + [0] * 50)
    assert verdict(good, poor)["verdict"] == "promote"
    assert verdict(poor, good)["verdict"] == "reject"
    found = verdict(good, good)
    assert found["verdict"] == "hold"
    assert "does not lie above" in found["reasons"][0]
    assert verdict(good, poor)["suites"][0]["change"] == pytest.approx(0.4)


def test_mcnemar_withholds_what_four_lucky_units_gained():
    # Four of 400 gained, none lost: hardly a resample misses all four, yet four throws of a coin come up so in 1 of 16.
    new, old = outcomes([1] * 204 + [0] * 196), outcomes([1] * 200 + [0] * 200)
    found = verdict(new, old)
    assert found["suites"][0]["interval"][0] > 0
    assert found["verdict"] == "hold"
    assert "McNemar's test does not agree (4 units gained, 0 lost, p = 0.062)" in found["reasons"][0]


def test_too_few_units_and_too_many_missing_answers_are_held():
    good, poor = outcomes([1] * 18), outcomes([0] * 18)
    assert "at least 20 are asked" in verdict(good, poor)["reasons"][0]
    silent = outcomes([1] * 60 + [0] * 40, missing=[False] * 80 + [True] * 20)
    found = verdict(silent, outcomes([0] * 100))
    assert (found["verdict"], found["suites"][0]["missing"]) == ("hold", 20)
    assert "20% of the answers are missing" in found["reasons"][0]


def test_a_slice_that_regressed_rejects_whatever_the_whole_gains():
    slices = ["recolour"] * 200 + ["background"] * 40
    new = outcomes([1] * 200 + [0] * 40, slices=slices)
    old = outcomes([0] * 150 + [1] * 50 + [1] * 40, slices=slices)
    found = verdict(new, old)
    assert found["verdict"] == "reject"
    assert any(reason.startswith("heldout, background: regressed by more than 5 points") for reason in found["reasons"])
    told = {row["slice"]: row["regressed"] for row in found["suites"][0]["slices"]}
    assert told == {"background": True, "recolour": False}
    few = GATE.model_copy(update={"slices": Slices(minimum=50)})
    assert verdict(new, old, few)["verdict"] == "promote"


def test_a_margin_lets_a_model_through_that_is_a_little_worse_at_most():
    rng = np.random.default_rng(0)
    old = rng.integers(0, 2, 2000).astype(float)
    new = old.copy()
    new[:10] = 0
    lenient = GATE.model_copy(update={"suites": (SuiteGate(suite="heldout", margin=0.03),)})
    assert verdict(outcomes(new), outcomes(old), lenient)["verdict"] == "promote"
    assert verdict(outcomes(new), outcomes(old))["verdict"] != "promote"


def opinion(preferences, *, trained_it=False, asked_for="better") -> Agreement:
    names = tuple(f"task {place}" for place in range(len(preferences)))
    return Agreement("models:/edit-score@champion", asked_for, 0.05, 50, np.array(preferences), names, trained_it)


def test_the_editor_needs_a_judge_that_did_not_train_it():
    """The teacher is delighted; the other judge is not: rewards that were hacked are not promoted."""
    gate = GateSettings(name="editor")
    delighted = opinion([1.0] * 100, trained_it=True)
    alone = decide(gate, [], [delighted], against="the base")
    assert alone["verdict"] == "hold"
    assert "no judge that did not train it" in alone["reasons"][-1]
    unhappy = opinion([-1.0] * 60 + [1.0] * 20 + [0.0] * 20)
    assert decide(gate, [], [delighted, unhappy], against="the base")["verdict"] == "reject"
    agrees = opinion([1.0] * 60 + [-1.0] * 20 + [0.0] * 20)
    found = decide(gate, [], [delighted, agrees], against="the base")
    assert (found["verdict"], found["independent"][1]["net_preference"]) == ("promote", pytest.approx(0.4))


def test_a_silent_judge_holds_and_its_silence_is_counted():
    found = decide(GateSettings(name="editor"), [], [opinion([1.0] * 30 + [math.nan] * 70)], against="the base")
    assert (found["verdict"], found["independent"][0]["missing"]) == ("hold", 70)


def test_two_judges_are_compared_on_the_same_units_only():
    one, other = outcomes([1, 0, 1]), outcomes([1, 0])
    with pytest.raises(EditLoopError, match="1 units are in one and not in the other"):
        paired(one, other)


def test_equal_models_are_promoted_no_oftener_than_the_nominal_level():
    (rate,) = calibrate(read_gate("reward"), tasks=(40,), gains=(0.0,), simulated=500, seed=3)
    assert rate.promoted <= 0.05
    assert rate.interval[0] <= 0.025
    assert rate.promoted + rate.held + rate.rejected == pytest.approx(1)


def test_power_grows_with_the_gain():
    weak, strong = calibrate(read_gate("reward"), tasks=(40,), gains=(0.02, 0.15), simulated=60)
    assert strong.promoted > 0.8 > weak.promoted
    assert "+15 points" in table(read_gate("reward"), [weak, strong])


@pytest.mark.parametrize("name", ["reward", "editor", "open"])
def test_shipped_gates_load(name):
    assert read_gate(name).name == name


def test_the_open_gate_says_what_it_would_have_said():
    gate = read_gate("open")
    found = decide(gate, [Measured(gate.suites[0], outcomes([0] * 50), outcomes([1] * 50))], against="it")
    assert found["verdict"] == "promote"
    assert "by its figures it would be reject" in found["reasons"][0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nsuites: [{suite: gedit}]", "suites.0.suite: Value error, no suite gedit; there are editscore-bench"),
        ("name: x\nsuites: [{suite: scenes}, {suite: scenes}]", "scenes comes twice; a gate asks a suite once"),
        ("name: x\nsuites: [{suite: imagenhub, data: d}]", "imagenhub has correlations and no units to pair"),
        ("name: x\nalpha: 0.9", "alpha: Input should be less than 0.5 (found 0.9)"),
        ("name: x\nmargn: 1", "margn: Extra inputs are not permitted (found 1)"),
        ("name: [", "cannot be read as YAML"),
        ("", "Input should be a valid dictionary"),
    ],
)
def test_a_faulty_gate_is_told_key_and_rule(tmp_path: Path, text, told):
    file = tmp_path / "gate.yaml"
    file.write_text(text)
    with pytest.raises(EditLoopError) as error:
        read_gate(str(file))
    assert told in str(error.value)
    assert str(file) in str(error.value)


def test_a_gate_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(EditLoopError, match=r"shipped gate \(editor, open, reward\)"):
        read_gate("rewards")


def test_the_page_says_all_of_it_and_trusts_nobody():
    slices = ["<script>"] * 30 + ["recolour"] * 30
    found = verdict(outcomes([1] * 60, slices=slices), outcomes([0] * 60, slices=slices))
    page = gate_page("Benchmark", found, {"Figures": {"within_group": None, "ci95": [0.1, 0.2], "pairs": 1200}})
    assert "promote" in page
    assert "<script>" not in page
    assert "<svg" in page
    assert "not measured" in page
    assert "1,200" in page

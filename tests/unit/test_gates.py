"""Gates: McNemar's test against counts by hand, verdicts with reasons, slices, other judges, files with faults."""

import math
from pathlib import Path

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.gates.decision import Agreement, SuiteMeasurement, decide
from editloop.evaluation.gates.page import gate_page
from editloop.evaluation.gates.settings import GateSettings, IndependentJudge, Slices, SuiteGate, read_gate
from editloop.evaluation.outcomes import align_outcomes
from editloop.statistics.bootstrap import ratio_interval
from editloop.statistics.mcnemar import discordant_counts, mcnemar
from tests.gate_outcomes import GATE, outcomes


def verdict(new, old, gate=GATE, **options):
    return decide(gate, [SuiteMeasurement(gate.suites[0], new, old)], against="the champion", **options)


def test_mcnemar_is_the_exact_binomial_on_what_only_one_got_right():
    new = np.array([1.0] * 30 + [1] * 12 + [0] * 4 + [0] * 10)
    old = np.array([1.0] * 30 + [0] * 12 + [1] * 4 + [0] * 10)
    assert discordant_counts(new, old) == (12, 4)
    # Heads 12, 13, 14, 15 or 16 times of 16 throws: 1820 + 560 + 120 + 16 + 1 of 65,536.
    assert mcnemar(new, old) == pytest.approx(2517 / 65536)
    assert mcnemar(old, new) == pytest.approx(1 - 697 / 65536)
    assert mcnemar(new, new) == 1.0
    assert mcnemar(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(0.75), (
        "one each way: 1 or 2 of 2 throws"
    )
    assert mcnemar(np.zeros(3), np.ones(3)) == 1.0
    assert [mcnemar(new * 0.5, old), mcnemar(old, new * 0.5)] == [None, None]


def test_better_is_promoted_worse_rejected_and_equal_held():
    good, poor = outcomes([1] * 90 + [0] * 10), outcomes([1] * 50 + [0] * 50)
    assert verdict(good, poor)["verdict"] == "promote"
    assert verdict(poor, good)["verdict"] == "reject"
    found = verdict(good, good)
    assert found["verdict"] == "hold"
    assert "does not lie above" in found["reasons"][0]
    assert verdict(good, poor)["suites"][0]["change"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("gained", "chance", "expected"), [(4, 0.0625, "hold"), (5, 0.03125, "hold"), (6, 0.015625, "promote")]
)
def test_mcnemar_withholds_what_a_few_lucky_units_gained(gained, chance, expected):
    """Of 400 a few gained and none lost: hardly a resample misses them all. Chance must do so in alpha / 2 at most."""
    new, old = outcomes([1] * (200 + gained) + [0] * (200 - gained)), outcomes([1] * 200 + [0] * 200)
    found = verdict(new, old)
    assert found["suites"][0]["interval"][0] > 0
    assert found["suites"][0]["mcnemar_p"] == pytest.approx(chance)
    assert found["verdict"] == expected
    withheld = f"McNemar's test does not agree ({gained} units gained, 0 lost, p = {chance:.3f})"
    assert (withheld in found["reasons"][0]) == (expected == "hold")


def test_a_suites_figures_are_shares_their_difference_and_its_interval():
    names = [f"task {place:02d}" for place in range(60)]
    new = outcomes([1] * 45 + [0] * 15, clusters=names)
    old = outcomes([0] * 15 + [1] * 30 + [0] * 15, clusters=names)
    suite = verdict(new, old, seed=7)["suites"][0]
    assert (suite["new"], suite["old"], suite["units"]) == (0.75, 0.5, 60)
    assert suite["change"] == pytest.approx(0.25)
    expected = ratio_interval(new.right - old.right, np.ones(60), seed=7)
    assert suite["interval"] == pytest.approx(expected[1:])
    strict = verdict(new, old, GATE.model_copy(update={"alpha": 0.001}), seed=7)
    assert strict["suites"][0]["interval"][0] < suite["interval"][0] < suite["interval"][1]
    assert "+25.0 points (50.0 % to 75.0 %), 95 % interval" in verdict(new, old)["reasons"][0]
    assert "99.9 % interval" in strict["reasons"][0]


def test_the_least_number_of_units_and_the_largest_share_of_missing_answers_still_decide():
    least, fewer = (verdict(outcomes([1] * count), outcomes([0] * count)) for count in (20, 19))
    assert (least["verdict"], fewer["verdict"]) == ("promote", "hold")
    for count, expected in ((10, "promote"), (11, "hold")):
        silent = outcomes([1] * 90 + [0] * 10, missing=[False] * (100 - count) + [True] * count)
        assert verdict(silent, outcomes([0] * 100))["verdict"] == expected
    task = verdict(outcomes([1] * 30, clusters=["task"] * 30), outcomes([0] * 30, clusters=["task"] * 30))
    assert "one source or task alone has no interval" in task["reasons"][0]


def test_a_suite_that_is_only_shown_has_no_say_and_all_required_ones_must_promote():
    good, poor, shown = outcomes([1] * 60), outcomes([0] * 60), SuiteGate(suite="scenes", minimum=20, required=False)
    required = GATE.suites[0]
    cases = {
        "promote": [SuiteMeasurement(required, good, poor), SuiteMeasurement(shown, poor, good)],
        "hold": [SuiteMeasurement(required, good, poor), SuiteMeasurement(required, good, good)],
        "reject": [
            SuiteMeasurement(required, good, poor),
            SuiteMeasurement(required, poor, good),
            SuiteMeasurement(required, good, good),
        ],
    }
    for expected, measured in cases.items():
        assert decide(GATE, measured, against="the champion")["verdict"] == expected
    alone = decide(GATE, [SuiteMeasurement(shown, good, poor)], against="the champion")
    assert (alone["verdict"], alone["suites"][0]["verdict"]) == ("hold", "promote")
    assert "nothing that may decide was measured" in alone["reasons"][-1]
    assert "shown, without a say" in alone["reasons"][0]


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


def test_only_slices_of_enough_units_and_of_the_gates_names_are_looked_at():
    slices = ["recolour"] * 200 + ["background"] * 40
    new = outcomes([1] * 200 + [0] * 40, slices=slices)
    old = outcomes([0] * 150 + [1] * 50 + [1] * 40, slices=slices)
    for chosen, expected in (
        (Slices(minimum=40), "reject"),
        (Slices(minimum=41), "promote"),
        (Slices(minimum=10, names=("recolour",)), "promote"),
        (Slices(minimum=10, names=("background",)), "reject"),
        (Slices(minimum=10, margin=1.1), "promote"),
    ):
        assert verdict(new, old, GATE.model_copy(update={"slices": chosen}))["verdict"] == expected
    shown = GATE.model_copy(update={"suites": (SuiteGate(suite="heldout", minimum=20, required=False),)})
    found = verdict(new, old, shown)
    assert (found["suites"][0]["verdict"], found["suites"][0]["slices"][0]["regressed"]) == ("promote", None)


def test_each_slices_shares_are_those_of_its_own_units():
    slices = ["recolour"] * 40 + ["background"] * 20
    new, old = outcomes([1] * 30 + [0] * 10 + [1] * 5 + [0] * 15, slices=slices), outcomes([1] * 60, slices=slices)
    rows = {row["slice"]: row for row in verdict(new, old)["suites"][0]["slices"]}
    assert (rows["recolour"]["new"], rows["background"]["new"]) == (0.75, 0.25)
    assert (rows["recolour"]["old"], rows["background"]["old"]) == (1.0, 1.0)


def test_a_slice_that_lost_less_than_its_margin_has_not_regressed():
    """Two units of a hundred lost, surely less than ten points; a margin of nothing would call that a loss."""
    new, old = outcomes([0] * 8 + [1] * 392), outcomes([1] * 400)
    for margin, regressed in ((0.1, False), (0.0, True)):
        row = verdict(new, old, GATE.model_copy(update={"slices": Slices(minimum=10, margin=margin)}))["suites"][0]
        assert row["slices"][0]["regressed"] == regressed


def opinion(preferences, *, trained_it=False, asked_for="better") -> Agreement:
    names = tuple(f"task {place}" for place in range(len(preferences)))
    gate = IndependentJudge(judge="models:/edit-score@champion", agree=asked_for, margin=0.05, minimum=50)
    return Agreement(gate, np.array(preferences), names, trained_it)


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
    assert (found["independent"][0]["tasks"], found["independent"][0]["net_preference"]) == (100, 1.0)
    enough, fewer = ([1.0] * count + [math.nan] * (100 - count) for count in (50, 49))
    verdicts = [
        decide(GateSettings(name="editor"), [], [opinion(one)], against="it")["verdict"] for one in (enough, fewer)
    ]
    assert verdicts == ["promote", "hold"]


@pytest.mark.parametrize(
    ("preferences", "better", "not_worse"),
    [
        ([0.0] * 100, "hold", "promote"),  # all ties: not clear of 0, and not below -0.05
        ([-1.0] * 2 + [0.0] * 398, "hold", "promote"),  # half a point lost
        ([-1.0] * 5 + [0.0] * 95, "reject", "hold"),  # five points lost: below 0, and about -0.05
        ([-1.0] * 50 + [0.0] * 50, "reject", "reject"),
        ([1.0] * 30 + [-1.0] * 30 + [0.0] * 40, "hold", "hold"),
    ],
)
def test_better_must_be_clear_of_nothing_and_not_worse_of_the_margin(preferences, better, not_worse):
    for asked_for, expected in (("better", better), ("not-worse", not_worse)):
        found = decide(GateSettings(name="editor"), [], [opinion(preferences, asked_for=asked_for)], against="the base")
        assert found["verdict"] == expected


def test_two_judges_are_compared_on_the_same_units_only():
    one, other = outcomes([1, 0, 1]), outcomes([1, 0])
    with pytest.raises(EditLoopError, match="1 units are in one and not in the other"):
        align_outcomes(one, other)


@pytest.mark.parametrize("name", ["reward", "editor", "open"])
def test_shipped_gates_load(name):
    assert read_gate(name).name == name


def test_the_open_gate_says_what_it_would_have_said():
    gate = read_gate("open")
    found = decide(gate, [SuiteMeasurement(gate.suites[0], outcomes([0] * 50), outcomes([1] * 50))], against="it")
    assert found["verdict"] == "promote"
    assert "by its figures it would be reject" in found["reasons"][0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nsuites: [{suite: gedit}]", "suites.0.suite=gedit: no suite gedit; there are editscore-bench"),
        ("name: x\nsuites: [{suite: scenes}, {suite: scenes}]", "scenes comes twice; a gate asks a suite once"),
        ("name: x\nsuites: [{suite: imagenhub, data: d}]", "imagenhub has correlations and no units to pair"),
        ("name: x\nalpha: 0.9", "alpha=0.9: Input should be less than 0.5"),
        ("name: x\nmargn: 1", "margn: unknown key (did you mean right_edits.margin?)"),
        ("name: [", "cannot be read as YAML"),
        ("", "name: missing"),
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
    with pytest.raises(EditLoopError, match=r"there are editor, open, reward\. Did you mean reward\?"):
        read_gate("rewards")


def test_the_page_says_all_of_it_and_trusts_nobody():
    slices = ["<script>"] * 30 + ["recolour"] * 30
    found = verdict(outcomes([1] * 60, slices=slices), outcomes([0] * 60, slices=slices))
    page = gate_page("Benchmark", found, {"Figures": {"within_editor": None, "ci95": [0.1, 0.2], "pairs": 1200}})
    assert "promote" in page
    assert "<script>" not in page
    assert "<svg" in page
    assert "not measured" in page
    assert "1,200" in page

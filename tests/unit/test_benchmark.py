"""Intervals, the gate's three verdicts, and what was not measured."""

import json
import math

import numpy as np
import pytest

from components.benchmark.page import benchmark_page
from components.benchmark.stage import hits, known, label_order, oracle_order, within_group
from components.gates.bootstrap import ratio_interval
from components.gates.decision import decide
from components.reward.data import Group


def group(ratings, target=True):
    """Candidates 0, 1, 2, ... go ever further from the source to the target, in the oracle's eyes."""
    count = len(ratings)
    source, wanted = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    edits = np.stack([np.full((8, 8, 3), 200 * step // (count - 1), np.uint8) for step in range(count)])
    return Group(
        task_id="t", task_type="recolour", instruction="x", candidates=tuple(map(str, range(count))),
        editors=("e",) * count, source=source, target=wanted if target else None, edits=edits,
        ratings=np.array(ratings, np.float32), weights=np.ones((count, count, 2), np.float32),
    )  # fmt: skip


def test_strict_accuracy_by_hand_ties_of_experts_are_not_asked_ties_of_the_model_are_wrong():
    one = group([[1, 1], [2, 2], [2, 2], [4, 4]])
    found = hits([np.array([0.0, 1.0, 5.0, 1.0])], [one], label_order)
    # Asked: 01 02 03 13 23 (12 is the experts' tie). Right: 01, 02, 03; 13 is the model's tie, 23 is the wrong way.
    assert (found.right.tolist(), found.asked.tolist()) == ([3.0], [5.0])


def test_the_oracle_orders_what_is_clear_and_says_nothing_without_a_target():
    scores = [np.array([0.0, 1.0, 2.0])]
    assert hits(scores, [group([[1, 1]] * 3)], oracle_order).asked.tolist() == [3.0]
    assert hits(scores, [group([[1, 1]] * 3, target=False)], oracle_order).asked.tolist() == [0.0]
    assert within_group(scores, [group([[1, 1]] * 3)]) == pytest.approx(1)
    assert math.isnan(within_group(scores, [group([[1, 1]] * 3, target=False)]))


def test_a_missing_score_is_wrong_on_every_pair_and_no_number_in_the_correlation():
    one = group([[1, 1], [2, 2], [3, 3], [4, 4]])
    found = hits([np.array([0.0, np.nan, 2.0, 3.0])], [one], label_order)
    assert (found.right.tolist(), found.asked.tolist()) == ([3.0], [6.0])
    assert within_group([np.array([0.0, np.nan, 2.0, 3.0])], [one]) == pytest.approx(1, abs=0.01)


def test_without_a_judge_half_of_what_is_asked_is_right():
    found = hits(None, [group([[1, 1], [2, 2], [3, 3]])], label_order)
    assert (found.right.tolist(), found.asked.tolist()) == ([1.5], [3.0])


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(200):
        counts = rng.integers(1, 10, 80).astype(float)
        right = rng.binomial(counts.astype(int), 0.7).astype(float)
        _, low, high = ratio_interval(right, counts, seed=trial, resamples=400)
        covered += low <= 0.7 <= high
    assert 0.9 <= covered / 200 <= 0.985


def test_nothing_counted_is_not_a_number():
    assert all(math.isnan(value) for value in ratio_interval(np.zeros(3), np.zeros(3)))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.01, 0.1, "promote"), (-0.1, 0.1, "hold"), (-0.2, -0.01, "reject"), (math.nan, math.nan, "hold")],
)
def test_verdicts(low, high, verdict):
    assert decide("accuracy", (low + high) / 2, low, high, against="it")["verdict"] == verdict


def test_what_was_not_measured_is_null_and_said():
    report = {name: known(value) for name, value in {"a": math.nan, "ci95": [math.nan, math.nan], "b": 0.5}.items()}
    assert json.loads(json.dumps(report, allow_nan=False)) == {"a": None, "ci95": None, "b": 0.5}
    page = benchmark_page(report, {"verdict": "hold", "reasons": ["<b>"]})
    assert "not measured" in page
    assert "&lt;b&gt;" in page

"""S_SC, S_PQ, O and their means against sums written out."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.models.edit_score.scores import average_passes, expected_score, overall
from editloop.models.edit_score.settings import AXES

POINTS = st.tuples(*[st.floats(0, 25)] * 4)


def test_overall_by_hand():
    assert overall([25, 25, 25, 25], 25) == 10
    assert overall([25, 0, 25, 25], 25) == 0
    assert overall([20, 10, 15, 25], 25) == pytest.approx(math.sqrt(4.0 * 6.0))
    assert overall([[4, 4, 1, 4], [4, 4, 4, 4]], 4) == pytest.approx([5.0, 10.0])


@given(st.lists(POINTS, min_size=1, max_size=6))
def test_avg_at_k_is_the_mean_of_the_passes_own_scores(passes):
    found = average_passes(passes, 25, 0.5)
    each = [math.sqrt(min(a, b) / 2.5 * min(c, d) / 2.5) for a, b, c, d in passes]
    assert found.overall == found.fused.mean == pytest.approx(np.mean(each), abs=1e-9)
    assert found.fused.sigma == pytest.approx(np.std(each), abs=1e-9)
    assert found.reward == pytest.approx(found.overall / 10)
    assert list(found.axes) == list(AXES)
    for column, axis in enumerate(AXES):
        assert found.axes[axis].mean == pytest.approx(np.mean([one[column] for one in passes]) / 2.5, abs=1e-9)


def test_passes_without_an_answer_are_left_out_until_too_few_are_left():
    good, better = (10.0, 10.0, 10.0, 10.0), (20.0, 20.0, 20.0, 20.0)
    assert average_passes([good, "unparsable", better, "empty"], 25, 0.5).overall == pytest.approx(6)
    missing = average_passes([good, "unparsable", "unparsable", "empty"], 25, 0.5)
    assert (missing.overall, missing.fused, missing.axes) == (None, None, {})
    assert missing.missing == "3 of 4 passes gave no score: empty 1, unparsable 2"
    assert average_passes([good, "empty", "empty"], 25, 1 / 3).missing == ""
    assert average_passes(["empty"], 25, 0.01).missing


def test_expected_scores_are_sums_over_all_digits():
    chances = np.random.default_rng(0).random((4, 6))
    chances /= chances.sum(1, keepdims=True)
    first = second = 0.0
    for digits in itertools.product(range(6), repeat=4):
        weight = np.prod([chances[place, digit] for place, digit in enumerate(digits)])
        whole = float(overall(np.array(digits), 5))
        first, second = first + weight * whole, second + weight * whole**2
    found = expected_score(0.8 * chances, 0.5)
    assert found.overall == pytest.approx(first)
    assert found.fused.sigma == pytest.approx(math.sqrt(second - first**2))
    assert found.axes["consistency"].mean == pytest.approx(chances[1] @ np.arange(6) * 2)


def test_digits_that_hold_too_little_or_are_not_numbers_are_missing():
    chances = np.full((4, 6), 0.15)
    chances[2] *= 0.3
    assert "naturalness" in expected_score(chances, 0.5).missing
    assert expected_score(chances, 0.2).missing == ""
    chances[3] = np.nan
    assert "artefacts" in expected_score(chances, 0.2).missing
    assert expected_score(np.zeros((4, 6)), 0.0).missing

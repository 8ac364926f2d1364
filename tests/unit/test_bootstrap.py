"""Resampled intervals: draws of whole clusters, quantiles at the expanded tails, chances that say the same."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from editloop.statistics import bootstrap
from editloop.statistics.bootstrap import (
    Resampled,
    expanded_tail,
    p_value_below,
    percentile_intervals,
    ratio_interval,
    resampled_ratios,
    sum_by_cluster,
)

STUDENT = {(0.025, 9): -2.2621571628, (0.05, 9): -1.8331129327, (0.025, 1): -12.7062047362}
"""Quantiles of Student's t from printed tables, by tail and degrees of freedom."""


def by_table(tail: float, clusters: int) -> float:
    """Hesterberg's expanded tail, from the table."""
    return NormalDist().cdf(STUDENT[tail, clusters - 1] * math.sqrt(clusters / (clusters - 1)))


def evenly(clusters: int, draws: int = 10_001) -> Resampled:
    """A figure whose resamples lie evenly in 0..1, so that a quantile is its own share."""
    return Resampled(np.array([0.5]), np.linspace(0, 1, draws)[:, None], np.array([clusters]))


@pytest.mark.parametrize(("tail", "clusters"), [(0.025, 10), (0.05, 10), (0.025, 2)])
def test_a_tail_is_taken_further_out_by_students_t_and_by_the_root_of_n_over_n_less_one(tail, clusters):
    assert expanded_tail(tail, clusters) == pytest.approx(by_table(tail, clusters), rel=1e-6)
    low, high = percentile_intervals(evenly(clusters), 1 - 2 * tail)[0]
    assert (low, 1 - high) == pytest.approx((by_table(tail, clusters),) * 2, abs=1e-6)


def test_an_interval_is_of_95_percent_where_nothing_else_is_asked():
    assert percentile_intervals(evenly(10))[0].tolist() == pytest.approx(
        [by_table(0.025, 10), 1 - by_table(0.025, 10)], abs=1e-6
    )


@pytest.mark.parametrize(("tail", "clusters"), [(0.025, 10), (0.05, 10)])
def test_the_chance_at_an_intervals_upper_end_is_its_tail(tail, clusters):
    found = evenly(clusters, 1_000_001)
    _, high = percentile_intervals(found, 1 - 2 * tail)[0]
    assert p_value_below(found, float(high))[0] == pytest.approx(tail, rel=0.01)


def test_resamples_at_the_bound_count_against_being_below_it_and_none_is_no_certainty():
    three = Resampled(np.zeros(1), np.array([[0.0], [1.0], [2.0]]), np.array([50]))
    at, above = p_value_below(three, 1.0)[0], p_value_below(three, 1.5)[0]
    # Three of four (the resamples and one for chance itself) are at or above 1, two of four above 1.5.
    assert NormalDist().cdf(NormalDist().inv_cdf(0.75) * math.sqrt(49 / 50)) == pytest.approx(at, abs=5e-3)
    assert above == pytest.approx(0.5)
    assert 0 < p_value_below(three, 3.0)[0] < above < at


def test_two_clusters_have_an_interval_and_one_has_none():
    draws = np.linspace(0, 1, 101)[:, None].repeat(2, axis=1)
    found = Resampled(np.array([0.5, 0.5]), draws, np.array([2, 1]))
    assert np.isfinite(percentile_intervals(found)).tolist() == [[True, True], [False, False]]
    chances = p_value_below(found, 0.9)
    assert chances[0] < 1 == chances[1]


def test_resamples_without_a_unit_of_the_figure_are_left_out():
    draws = np.array([[math.nan], [0.25], [0.25], [math.nan]])
    found = Resampled(np.array([0.25]), draws, np.array([2]))
    assert percentile_intervals(found).tolist() == [[0.25, 0.25]]
    assert p_value_below(found, 0.3)[0] == pytest.approx(p_value_below(found._replace(draws=draws[1:3]), 0.3)[0])
    nothing = found._replace(draws=np.full((4, 1), math.nan))
    assert np.isnan(percentile_intervals(nothing)).all()
    assert p_value_below(nothing, 0.3).tolist() == [1.0]


@pytest.mark.parametrize("at_once", [1, 7, 1_000_000])
def test_a_resample_draws_as_many_clusters_as_there_are(monkeypatch, at_once):
    """Hits of 1, 10 and 100 tell how often each of three clusters came: the digits of a draw's sum."""
    monkeypatch.setattr(bootstrap, "DRAWS_AT_ONCE", at_once)
    hits, counts = np.array([[1.0], [10.0], [100.0]]), np.ones((3, 1))
    found = resampled_ratios(hits, counts, resamples=200)
    assert (found.values.tolist(), found.clusters.tolist()) == ([37.0], [3])
    sums = np.rint(3 * found.draws[:, 0]).astype(int)
    digits = np.stack([sums // 100, sums // 10 % 10, sums % 10])
    assert (digits.sum(axis=0) == 3).all()
    assert len(set(sums.tolist())) == 10, "every way to draw three of three comes up"
    # A cluster comes once a resample in the mean; five standard errors of 200 draws of variance 2/3.
    assert digits.mean(axis=1) == pytest.approx([1, 1, 1], abs=5 * math.sqrt(2 / 3 / 200))


def test_draws_follow_the_seed():
    hits, counts = np.arange(6.0)[:, None], np.ones((6, 1))
    first, again, another = (resampled_ratios(hits, counts, seed=seed, resamples=20).draws for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, another)
    assert np.array_equal(
        resampled_ratios(hits, counts, resamples=20).draws, resampled_ratios(hits, counts, seed=0, resamples=20).draws
    )
    assert ratio_interval(hits[:, 0], counts[:, 0], resamples=50) == ratio_interval(
        hits[:, 0], counts[:, 0], seed=0, resamples=50
    )


def test_figures_that_count_nothing_are_missing_in_values_and_draws():
    hits, counts = np.array([[1.0, 0.0], [0.0, 0.0], [-3.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    with np.errstate(all="raise"):
        found = resampled_ratios(hits, counts, resamples=300)
    assert found.values[0] == -1
    assert np.isnan(found.values[1])
    assert found.clusters.tolist() == [2, 0]
    assert np.isnan(found.draws[:, 1]).all()
    known = found.draws[~np.isnan(found.draws[:, 0]), 0]
    assert 0 < np.isnan(found.draws[:, 0]).mean() < 0.1, "one resample of 27 is of the empty cluster alone"
    assert set(np.round(known, 6).tolist()) <= {1.0, -3.0, -1.0, round(-5 / 3, 6), round(-1 / 3, 6)}


def test_ten_thousand_resamples_are_drawn_where_nothing_else_is_asked_and_one_count_has_a_ratio():
    assert len(resampled_ratios(np.ones((2, 1)), np.ones((2, 1))).draws) == 10_000
    value, low, high = ratio_interval(np.array([2.0, 0.0]), np.array([1.0, 0.0]))
    assert (value, math.isnan(low), math.isnan(high)) == (2.0, True, True)


def test_clusters_sum_their_units_in_the_order_of_their_names():
    values, counts = sum_by_cluster(
        np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 1.0]]), ["b", "a", "b"]
    )
    assert values.tolist() == [[3.0, 4.0], [6.0, 8.0]]
    assert counts.tolist() == [[1.0, 1.0], [2.0, 1.0]]


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
    once = sum_by_cluster(right[:, None], np.ones((60, 1)), names)
    ten_times = sum_by_cluster(np.repeat(right, 10)[:, None], np.ones((600, 1)), np.repeat(names, 10).tolist())
    assert percentile_intervals(resampled_ratios(*once))[0] == pytest.approx(
        percentile_intervals(resampled_ratios(*ten_times))[0]
    )


def test_all_slices_of_a_resample_are_of_the_same_draws():
    hits, counts = np.array([[1.0, 1], [0, 0], [1, 1]]), np.ones((3, 2))
    found = resampled_ratios(hits, counts, resamples=50)
    assert found.draws[:, 0].tolist() == found.draws[:, 1].tolist()
    assert found.values.tolist() == pytest.approx([2 / 3, 2 / 3])


def test_what_rests_on_one_cluster_or_none_has_no_interval():
    found = resampled_ratios(np.array([[1.0, 0], [0, 0]]), np.array([[1.0, 0], [0, 0]]))
    assert np.isnan(percentile_intervals(found)).all()
    assert p_value_below(found, 0.0).tolist() == [1, 1]
    assert all(math.isnan(value) for value in ratio_interval(np.zeros(3), np.zeros(3)))

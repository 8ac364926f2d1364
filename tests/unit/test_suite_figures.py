"""Figures of suites against cases computed by hand, and against scipy."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import spearmanr

from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.correlation import spearman
from editloop.evaluation.suites.evaluation import evaluate
from editloop.evaluation.suites.page import suite_page
from editloop.evaluation.suites.suite import Comparison, Counting, Item, Label, Suite
from editloop.evaluation.suites.ties import best_threshold, held_out_thresholds, pair_outcomes, preference_signs

JUDGE = {"name": "judge", "version": "1" * 64}
NAN = math.nan


def pair(key: str, label: Label, *, task: str = "all", axis: str = "overall", cluster: str = "") -> Item:
    one = (Comparison(key, 0, 1, label),)
    return Item(key, cluster or key, task, "", ("left", "right"), one, axis=axis)  # type: ignore[arg-type]


def group(key: str, *labels: Label) -> Item:
    letters = "ABCD"[: {1: 2, 3: 3, 6: 4}[len(labels)]]
    both = combinations(range(len(letters)), 2)
    compared = tuple(Comparison(f"{key}{i}{j}", i, j, label) for (i, j), label in zip(both, labels, strict=True))
    return Item(key, key, f"{len(letters)}pair", "", tuple(letters), compared)


def suite_of(items: Sequence[Item], counting: Counting, *, four: bool = False, mean: bool = False) -> Suite:
    return Suite("genai-bench", counting, "0" * 64, tuple(items), four, mean)


def scored(items: Sequence[Item], *scores: Sequence[float]) -> SuiteAnswers:
    return SuiteAnswers(JUDGE, {item.key: np.array(one) for item, one in zip(items, scores, strict=True)})


def figures(suite: Suite, answers: SuiteAnswers) -> dict:
    report = evaluate(suite, answers).report
    assert json.loads(json.dumps(report, allow_nan=False)) == report, "a report is JSON"
    assert suite.name in suite_page(report)
    return report


def test_the_published_threshold_is_the_best_on_the_suite_itself() -> None:
    human = np.array([1.0, -1, 0, 0, 1])
    difference = np.array([0.5, 0.2, 0.1, -0.3, -0.4])
    assert best_threshold(human, difference) == 0.3
    assert best_threshold(human[:2], difference[:2]) == 0
    rng = np.random.default_rng(0)
    for _ in range(50):
        human, difference = rng.integers(-1, 2, 30) * 1.0, rng.normal(size=30).round(1)
        tried = {
            eps: (((human == 0) & (abs(difference) <= eps)) | (human * difference * (abs(difference) > eps) > 0)).mean()
            for eps in np.arange(0, 4, 0.1).round(1)
        }
        found = preference_signs(difference, best_threshold(human, difference))
        assert (found == human).mean() == pytest.approx(max(tried.values()))


def test_a_threshold_never_saw_the_pairs_it_decides() -> None:
    human = np.array([0.0, 1, 0, 1, 0, 1])
    difference = np.array([0.1, 0.2, 0.1, 0.2, 5, 6.0])
    clusters = np.array([0, 0, 1, 1, 2, 2])
    found = held_out_thresholds(human, difference, clusters, np.ones(6, dtype=bool), seed=3)
    assert found is not None
    assert found[0].tolist() == [0.1, 0.1, 0.1, 0.1, 0.1, 0.1] or found[0][4] == found[0][5] == 0.1
    for cluster in range(3):
        (threshold,) = set(found[0][clusters == cluster])
        assert threshold == best_threshold(human[clusters != cluster], difference[clusters != cluster])
    alone = np.zeros(6, dtype=np.int64)
    assert held_out_thresholds(human, difference, alone, np.ones(6, dtype=bool), seed=0) is None


def test_votes_with_ties_by_hand() -> None:
    """Differences 0.5, 0.2, 0.1, -0.3, -0.4, one missing: best with 0.3, where C = 1, D = 1, Tm = 1, Thm = 2."""
    labels: list[Label] = ["left", "right", "tie", "both_bad", "left", "left"]
    items = [pair(str(n), label) for n, label in enumerate(labels)]
    answers = scored(items, [0.5, 0], [0.2, 0], [0.1, 0], [0, 0.3], [0, 0.4], [1, NAN])
    report = figures(suite_of(items, "ties", four=True), answers)
    assert report["threshold"]["published"] == 0.3
    assert report["counts"] == {
        "units": 6,
        "clusters": 6,
        "right": 1,
        "wrong": 1,
        "human_ties": 0,
        "model_ties": 1,
        "both_ties": 2,
        "other_ties": 0,
        "missing": 1,
    }
    assert report["accuracy"] == pytest.approx(3 / 6)
    assert report["threshold"]["accuracy_published"] == report["accuracy"]
    assert report["accuracy_answered"] == pytest.approx(3 / 5)
    assert report["tie_rate"] == pytest.approx(3 / 5)
    assert report["accuracy_without_ties"] == pytest.approx(1 / 4), (
        "one of four pairs that people order; one is missing"
    )
    assert report["threshold"]["accuracy_held_out"] <= report["accuracy"]
    low, high = report["ci95"]
    assert 0 <= low < 0.5 < high <= 1
    assert set(report["intervals"]) >= {"accuracy", "half_credit_accuracy", "tie_rate"}


def test_a_verdict_must_be_the_humans_word() -> None:
    labels: list[Label] = ["left", "right", "both_bad", "tie", "tie", "left", "right", "both_bad"]
    said: list[Label | None] = ["left", "left", "tie", "tie", "right", None, "both_bad", "both_bad"]
    items = [pair(str(n), label) for n, label in enumerate(labels)]
    answers = SuiteAnswers(JUDGE, verdicts={str(n): word for n, word in enumerate(said)})
    report = figures(suite_of(items, "ties", four=True), answers)
    assert report["accuracy"] == pytest.approx(3 / 8)
    assert report["accuracy_answered"] == pytest.approx(3 / 7)
    counts = {"right": 1, "wrong": 1, "human_ties": 1, "model_ties": 1, "both_ties": 2, "other_ties": 1, "missing": 1}
    assert {name: report["counts"][name] for name in counts} == counts
    assert report["threshold"] is None
    assert report["confusion"]["both_bad"] == {"left": 0, "right": 0, "both_bad": 1, "tie": 1, "missing": 0}
    assert report["confusion"]["left"]["missing"] == 1
    three_words = figures(suite_of(items, "ties"), answers)
    assert three_words["accuracy"] == pytest.approx(4 / 8), "where people had one word for ties, both_bad is that word"


def test_strict_accuracy_is_the_mean_over_tasks_and_a_tie_is_wrong() -> None:
    items = [
        *(pair(f"a{n}", "left", task="subject-add", axis="overall") for n in range(4)),
        pair("b0", "left", task="compose", axis="overall"),
        pair("b1", "left", task="compose", axis="consistency"),
    ]
    answers = scored(items, [2, 1], [2, 1], [1, 1], [1, 2], [3, 3], [2, 1])
    report = figures(suite_of(items, "strict", mean=True), answers)
    assert report["accuracy"] == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert report["accuracy_over_units"] == pytest.approx(3 / 6)
    assert report["half_credit_accuracy"] == pytest.approx((2.5 / 4 + 1.5 / 2) / 2)
    assert report["tie_rate"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert report["by_task"]["subject-add"]["accuracy"] == pytest.approx(0.5)
    assert report["by_task"]["subject-add"]["n"] == 4
    assert report["by_axis"]["overall"]["accuracy"] == pytest.approx((2 / 4 + 0 / 1) / 2)
    assert report["by_axis"]["consistency"]["accuracy"] == 1
    assert set(report["by_group"]) == {"subject", "advanced"}
    assert report["threshold"] is None
    found = evaluate(suite_of(items, "strict", mean=True), answers).outcomes
    assert found.right.tolist() == [1, 1, 0, 0, 0, 1]
    assert found.slices == ("subject-add",) * 4 + ("compose",) * 2


def test_a_group_is_right_only_if_all_its_comparisons_are() -> None:
    items = [
        group("k2", "left"),
        group("tie", "tie"),
        group("k3", "left", "left", "left"),
        group("half", "left", "left", "left"),
        group("k4", *["right"] * 6),
        group("lost", "left", "left", "left"),
    ]
    answers = scored(items, [5, 1], [3, 2.5], [3, 2, 1], [3, 1, 1], [1, 2, 3, 3.1], [3, 2, NAN])
    report = figures(suite_of(items, "groups"), answers)
    assert report["threshold"]["published"] == 0.5, "chosen by the groups of two, where people may see a tie"
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert {task: row["accuracy"] for task, row in report["by_task"].items()} == {
        "2pair": 1.0,
        "3pair": pytest.approx(1 / 3),
        "4pair": 1.0,
    }
    assert report["counts"]["model_ties"] == 1
    assert report["counts"]["missing"] == 1
    assert report["half_credit_accuracy"] == pytest.approx((1 + 1 + 0.5 + 1 + 0) / 5)
    assert len(evaluate(suite_of(items, "groups"), answers).outcomes) == 6


def test_the_published_overall_figure_of_groups_lets_no_threshold_cost_anything() -> None:
    """EditReward prints 56.99, 36.00 and 10.81, which are 106, 54 and 16 groups of 484, and 36.78, which is 178."""
    items = [*(group(f"k2-{n}", "tie") for n in range(3)), group("near", "left"), group("k3", *["left"] * 3)]
    report = figures(suite_of(items, "groups"), scored(items, [5, 1], [1, 5], [2, 6], [3, 1], [3, 2, 1]))
    assert report["threshold"]["published"] == 4
    assert report["by_task"]["2pair"]["accuracy"] == pytest.approx(3 / 4)
    assert (report["accuracy"], report["accuracy_as_published"]) == pytest.approx((4 / 5, 5 / 5))
    assert "one threshold for all pairs" in suite_page(report)
    assert "only where people call a tie" in suite_page(report)
    assert "accuracy_as_published" not in figures(suite_of(items[-1:], "groups"), scored(items[-1:], [3, 2, 1]))


def test_suites_rank_by_the_published_score_and_show_the_other_beside_it() -> None:
    items = [pair("a", "left"), pair("b", "left", axis="consistency"), pair("c", "right")]
    answers = replace(
        scored(items, [2, 1], [2, 1], [1, 2]),
        overall={"a": np.array([1, 2]), "b": np.array([2, 1]), "c": np.array([1, 2])},
    )
    report = figures(suite_of(items, "strict"), answers)
    assert (report["accuracy"], report["accuracy_by_overall"]) == pytest.approx((1, 2 / 3))
    assert "Accuracy by the judge&#39;s own overall score" in suite_page(report)
    assert "accuracy_by_overall" not in figures(suite_of(items, "strict"), scored(items, [2, 1], [2, 1], [1, 2]))


def test_published_micro_average_over_groups_is_the_accuracy_of_all() -> None:
    """EditReward's printed 56.45 / 42.67 / 11.49 / 38.42 on 186, 150 and 148 groups are 105, 64 and 17 right ones."""
    items, scores = [], []
    for labels, right, total in ((["left"], 105, 186), (["left"] * 3, 64, 150), (["left"] * 6, 17, 148)):
        for number in range(total):
            items.append(group(f"{len(labels)}-{number}", *labels))
            K = len(items[-1].candidates)
            scores.append(list(range(K, 0, -1) if number < right else range(K)))
    report = figures(suite_of(items, "groups"), scored(items, *scores))
    assert round(100 * report["accuracy"], 2) == pytest.approx(38.42, abs=0.02)
    assert [round(100 * report["by_task"][f"{k}pair"]["accuracy"], 2) for k in (2, 3, 4)] == [56.45, 42.67, 11.49]


def test_intervals_resample_whole_clusters() -> None:
    """Twenty copies of a cluster's pair tell no more than one: the interval is that of ten clusters."""
    alone = [pair(str(n), "left") for n in range(10)]
    copied = [pair(f"{n}-{copy}", "left", cluster=str(n)) for n in range(10) for copy in range(20)]
    one = figures(
        suite_of(alone, "strict"),
        scored(alone, *[[n % 2, 0.5] for n in range(10)]),
    )
    many = figures(suite_of(copied, "strict"), scored(copied, *[[n % 2, 0.5] for n in range(10) for _ in range(20)]))
    assert many["accuracy"] == one["accuracy"] == 0.5
    assert many["ci95"] == pytest.approx(one["ci95"], abs=0.02)


def test_outcomes_name_every_meeting_of_human_and_judge() -> None:
    human = np.array([1.0, -1, 1, -1, 0, 0, 1, 0])
    judge = np.array([1.0, -1, -1, 0, 0, 1, NAN, NAN])
    assert pair_outcomes(human, judge).tolist() == [0, 0, 5, 4, 1, 3, 6, 6]


def test_spearman_is_scipys_in_every_resample() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 5, 40) * 1.0, rng.normal(size=40)
    one[3] = other[7] = NAN
    times = np.concatenate([np.ones((1, 40)), rng.integers(0, 4, (20, 40))])
    for count, found in zip(times.astype(int), spearman(one, other, times), strict=True):
        drawn = np.repeat(np.stack([one, other]), count, axis=1)
        drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
        assert found == pytest.approx(spearmanr(*drawn).statistic)
    assert np.isnan(spearman(np.ones(40), other, times)).all()


def rated(key: str, ratings: Sequence[Sequence[float]]) -> Item:
    raters = tuple(f"r{n}" for n in range(len(ratings)))
    return Item(key, key, "all", "", ("m", "n"), ratings=np.array(ratings, dtype=float), raters=raters)


def test_correlation_is_averaged_over_editors_in_three_ways() -> None:
    rng = np.random.default_rng(1)
    items = [rated(str(n), rng.uniform(size=(3, 2)).round(2).tolist()) for n in range(12)]
    scores = rng.uniform(size=(12, 2)).round(2)
    scores[4, 1] = NAN
    report = figures(Suite("imagenhub", "correlation", "0" * 64, tuple(items)), scored(items, *scores.tolist()))
    means = np.stack([item.ratings for item in items if item.ratings is not None]).mean(axis=1)
    known = ~np.isnan(scores[:, 1])
    each = [
        spearmanr(scores[:, 0], means[:, 0]).statistic,
        spearmanr(scores[known, 1], means[known, 1]).statistic,
    ]
    told = report["correlation"]
    assert report["accuracy"] is None
    assert report["spearman"] == told["spearman"] == pytest.approx(np.mean(each))
    assert told["fisher"] == pytest.approx(np.tanh(np.arctanh(each).mean()))
    assert told["published"] == pytest.approx(np.tanh(np.mean(each)))
    assert told["by_model"]["n"]["spearman"] == pytest.approx(each[1])
    assert report["counts"] == {"units": 24, "missing": 1}
    assert report["ci95"][0] < report["spearman"] < report["ci95"][1]
    ratings = np.stack([item.ratings for item in items if item.ratings is not None])
    alone = [
        spearmanr(ratings[:, r, m], np.delete(ratings, r, axis=1).mean(axis=1)[:, m]).statistic
        for r in range(3)
        for m in range(2)
    ]
    assert report["human_ceiling"]["value"] == pytest.approx(np.mean(alone))
    assert report["human_ceiling"]["raters"] == 3
    suite = Suite("imagenhub", "correlation", "0" * 64, tuple(items))
    assert len(evaluate(suite, scored(items, *scores.tolist())).outcomes) == 0


def test_what_people_reach_is_counted_as_a_judge_is() -> None:
    """Ratings 8 4, 8 6 and 4 4 of two edits: the first two raters are right against the rest, the third ties."""
    item = Item(
        "t",
        "s",
        "recolour",
        "",
        ("a", "b"),
        (Comparison("t:a:b", 0, 1, "left"),),
        ratings=np.array([[8.0, 4], [8, 6], [4, 4]]),
        raters=("x", "y", "z"),
    )
    alone = Item(
        "u", "s", "recolour", "", ("a", "b"), (Comparison("u:a:b", 0, 1, "left"),), np.array([[8.0, 4]]), ("x",)
    )
    report = figures(suite_of([item, alone], "strict"), scored([item, alone], [1, 0], [0, 1]))
    assert report["human_ceiling"]["value"] == pytest.approx(2 / 3)
    assert report["human_ceiling"]["orders"] == 3
    assert report["human_ceiling"]["raters"] == 3
    assert "correlation" not in report
    assert report["accuracy"] == 0.5

"""Votes to labels: orders, ties, how sure they are, and a lead's decision in the votes' place."""

from datetime import UTC, datetime
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.data.vocabulary import AXES, Candidate, EditTask, Judgement
from editloop.datasets.labels import TIE, PreferenceLabels, fit_labels, mean_rating, order_confidence, preference_pairs
from editloop.datasets.votes import Vote

RATING = st.tuples(st.integers(1, 4), st.integers(1, 4))
VOTES = st.dictionaries(
    st.sampled_from("abcd"), st.dictionaries(st.sampled_from(["x", "y", "z"]), RATING, min_size=1), min_size=2
)
EVEN = np.full(4, 0.25)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def task(candidates="abcd"):
    made = tuple(Candidate(candidate_id=one, image=one, editor="e") for one in candidates)
    return EditTask(task_id="t", name="t", instruction="i", source="s", candidates=made)


def said(task_id, candidate, annotator, rating):
    return Judgement.model_validate(
        {
            "task_id": task_id,
            "candidate_id": candidate,
            "annotator": annotator,
            "if": rating[0],
            "vq": rating[1],
            "position": 0,
            "annotation_id": 1,
            "created_at": NOW,
        }
    )


def decided(candidate, rating, lead="lee"):
    return Vote("t", candidate, lead, *rating)


def equal_votes(votes):
    """Labels of annotators who all count the same."""
    weights = {axis: dict.fromkeys("xyz", 0.7) for axis in AXES}
    return PreferenceLabels({"t": votes}, weights, {axis: {("t", one): EVEN for one in votes} for axis in AXES})


@given(VOTES)
def test_pairs_order_by_the_annotators_who_rated_both(votes):
    rows = {(row["a"], row["b"]): row for row in preference_pairs([task()], equal_votes(votes))}
    for a, b in combinations(sorted(votes), 2):
        both = votes[a].keys() & votes[b].keys()
        assert ((a, b) in rows) == bool(both)
        if not both:
            continue
        row = rows[a, b]
        for place, axis in enumerate(AXES):
            margin = np.mean([votes[a][who][place] - votes[b][who][place] for who in both])
            assert row[f"{axis}_margin"] == pytest.approx(margin, abs=1e-4)
            assert row[f"{axis}_order"] == int(margin > TIE) - int(margin < -TIE)
            assert row[f"{axis}_confidence"] == pytest.approx(0.5 if row[f"{axis}_order"] else 0.25)


def test_a_tie_whose_axes_disagree_keeps_both_orders():
    (row,) = preference_pairs([task("ab")], equal_votes({"a": {"x": (4, 1)}, "b": {"x": (1, 4)}}))
    assert (row["if_order"], row["vq_order"], row["overall_order"]) == (1, -1, 0)


def test_an_orders_confidence_by_counting():
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(4), size=2)
    one, other = rng.choice(4, 400_000, p=a), rng.choice(4, 400_000, p=b)
    differ = one != other
    assert order_confidence(1, a, b) == pytest.approx((one > other)[differ].mean(), abs=0.004)
    assert order_confidence(-1, a, b) == pytest.approx((one < other)[differ].mean(), abs=0.004)
    assert order_confidence(0, a, b) == pytest.approx((~differ).mean(), abs=0.004)
    assert order_confidence(1, a, b) == pytest.approx(order_confidence(-1, b, a))
    sure = np.eye(4)
    assert order_confidence(1, sure[3], sure[0]) == 1
    assert order_confidence(1, sure[2], sure[2]) == 0.5


def test_an_orders_confidence_by_hand():
    """Level 1 (7 of 10) or 2 against 2 (4 of 10) or 3: never above, the same in 12 of 100, below in the others."""
    a, b = np.array([0.7, 0.3, 0.0, 0.0]), np.array([0.0, 0.4, 0.6, 0.0])
    assert order_confidence(0, a, b) == pytest.approx(0.12)
    assert order_confidence(-1, a, b) == 1.0
    assert order_confidence(1, a, b) == 0.0
    even = np.array([0.5, 0.5, 0.0, 0.0])
    # Of a = 1, 2 or 3 in thirds: above `even` in 1/6 (2 over 1) + 1/3 (3), below in 1/6 (1 under 2).
    third = np.array([1, 1, 1, 0]) / 3
    assert order_confidence(1, third, even) == pytest.approx(0.75)
    assert order_confidence(-1, third, even) == pytest.approx(0.25)
    both = order_confidence(np.array([1, -1, 0]), np.stack([third] * 3), np.stack([even] * 3))
    assert both.tolist() == pytest.approx([0.75, 0.25, 1 / 3], abs=1e-4)


def test_a_mean_rating_weighs_each_annotator_and_none_at_nothing():
    votes = {"x": (4, 1), "y": (1, 3)}
    assert mean_rating(votes, "if", {"x": 0.75, "y": 0.25}) == pytest.approx(3.25)
    assert mean_rating(votes, "vq", {"x": 0.75, "y": 0.25}) == pytest.approx(1.5)
    assert mean_rating(votes, "if", {"y": 0.5}) == pytest.approx((4 + 0.5) / 1.5), "who has no weight counts in full"
    assert mean_rating(votes, "if", {"x": 0.0, "y": 0.001}) == pytest.approx(2.5), "all who tell nothing count alike"
    assert mean_rating(votes, "if", {"x": 0.0, "y": 0.99}) == pytest.approx((0.04 + 0.99) / 1.0)


def test_a_margin_within_the_tie_is_a_tie_and_one_beyond_it_an_order():
    """Two raters' weights w and 1 - w: with 3 and 2 against 2 and 3 the margin is 2 w - 1."""
    votes = {"a": {"x": (3, 3), "y": (2, 2)}, "b": {"x": (2, 2), "y": (3, 3)}}
    for share, order in ((0.57, 0), (0.58, 1), (0.43, 0), (0.42, -1)):
        labels = equal_votes(votes)._replace(weights={axis: {"x": share, "y": 1 - share} for axis in AXES})
        (row,) = preference_pairs([task("ab")], labels)
        assert (row["if_margin"], row["if_order"], row["vq_order"]) == (pytest.approx(2 * share - 1), order, order)
        assert row["overall_order"] == (1 if share > 0.5375 else -1 if share < 0.4625 else 0)


def test_an_overall_orders_confidence_is_that_of_the_sums_of_both_axes():
    """Levels are known but one: a has 2 + 2, b has 1 + (1 or 4), so that a is ahead in two cases of three."""
    sure = np.eye(4)
    levels = {
        "if": {("t", "a"): sure[1], ("t", "b"): sure[0]},
        "vq": {("t", "a"): sure[1], ("t", "b"): np.array([2, 0, 0, 1]) / 3},
    }
    labels = PreferenceLabels(
        {"t": {"a": {"x": (2, 2)}, "b": {"x": (1, 1)}}}, {axis: {"x": 1.0} for axis in AXES}, levels
    )
    (row,) = preference_pairs([task("ab")], labels)
    assert (row["if_confidence"], row["vq_confidence"]) == (1.0, pytest.approx(0.6667))
    assert (row["overall_order"], row["confidence"]) == (1, pytest.approx(0.6667))
    assert preference_pairs([task("cd")], labels) == []


def campaign(rng, noise, tasks=400):
    """Judgements by two each of the people with the given noise (levels; None = at random), and the true levels."""
    truth, found = {}, []
    for number in range(tasks):
        asked = rng.choice(list(noise), 2, replace=False).tolist()
        for candidate in "abcd":
            true = rng.integers(1, 5, 2)
            truth[f"t{number}", candidate] = true
            for who in asked:
                spread = noise[who]
                level = rng.integers(1, 5, 2) if spread is None else np.rint(true + rng.normal(0, spread, 2))
                found.append(said(f"t{number}", candidate, who, np.clip(level, 1, 4).astype(int).tolist()))
    return found, truth


def test_who_answers_at_random_hardly_counts_and_sure_orders_are_right_more_often():
    found, truth = campaign(np.random.default_rng(1), {"x": 0.3, "y": 0.4, "z": 0.9, "spammer": None})
    labels = fit_labels(found, [])
    for axis in AXES:
        weights = labels.weights[axis]
        assert weights["spammer"] < 0.1 < 0.2 < weights["z"] < min(weights["x"], weights["y"])
    right = []
    for number in range(400):
        one = task().model_copy(update={"task_id": f"t{number}"})
        for row in preference_pairs([one], labels):
            gap = truth[f"t{number}", row["a"]][0] - truth[f"t{number}", row["b"]][0]
            if row["if_order"] and gap:
                right.append((row["if_confidence"], np.sign(gap) == row["if_order"]))
    sure = [hit for confidence, hit in right if confidence > 0.95]
    unsure = [hit for confidence, hit in right if confidence <= 0.8]
    assert len(sure) > 500
    assert len(unsure) > 30
    assert np.mean(sure) > np.mean(unsure) + 0.05
    assert np.mean([hit for _, hit in right]) == pytest.approx(np.mean([sure for sure, _ in right]), abs=0.05)


def test_small_differences_in_weight_do_not_make_orders():
    found, _ = campaign(np.random.default_rng(2), {"x": 0.4, "y": 0.45})
    crossed = [said("t", "a", "x", (3, 3)), said("t", "a", "y", (2, 2))]
    crossed += [said("t", "b", "x", (2, 2)), said("t", "b", "y", (3, 3))]
    labels = fit_labels([*found, *crossed], [])
    assert labels.weights["if"]["x"] != labels.weights["if"]["y"]
    (row,) = preference_pairs([task("ab")], labels)
    assert row["if_order"] == row["vq_order"] == row["overall_order"] == 0


def test_the_leads_decision_stands_in_the_votes_place():
    votes = [said("t", "a", "x", (4, 4)), said("t", "b", "x", (1, 1)), said("t", "a", "y", (1, 4))]
    votes += [said("t", "b", "y", (4, 1)), said("t2", "a", "x", (2, 2)), said("t2", "a", "y", (3, 3))]
    labels = fit_labels(votes, [decided("a", (1, 2)), decided("b", (3, 2))])
    (row,) = preference_pairs([task("ab")], labels)
    assert (row["if_order"], row["if_margin"], row["if_confidence"]) == (-1, -2.0, 1.0)
    assert (row["vq_order"], row["overall_order"]) == (0, -1)
    assert len(labels.votes["t2"]["a"]) == 2
    assert [labels.weights[axis]["lee"] for axis in AXES] == [1.0, 1.0]

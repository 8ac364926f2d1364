"""Preference labels from votes: annotator weights, the order of each pair of candidates, and its confidence."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES, Axis, EditTask
from editloop.datasets.votes import Vote
from editloop.statistics.judgement_table import TYPES, with_items
from editloop.statistics.reliability import LEVELS, reliability

LEAST_WEIGHT = 0.01
"""Smallest weight in a mean. Where all annotators of a candidate are uninformative, they count equally."""
TIE = 0.15
"""Rating steps. A smaller margin is a tie; otherwise small differences in weight would order equal votes."""
DIGITS = 4
"""Decimals of confidences and weights, so that the last bits of a fit do not make another dataset."""

Rating = tuple[int, int]
"""Instruction following and visual quality, each 1..4, in the order of AXES."""
RATINGS: dict[Rating, Rating] = {rating: rating for rating in product(LEVELS, LEVELS)}
"""One object per rating, shared by all votes to save memory."""
TaskVotes = dict[str, dict[str, Rating]]
"""candidate_id -> annotator -> rating."""
Levels = NDArray[np.floating]
"""Probabilities of the levels, (L,) or (..., L)."""


class PreferenceLabels(NamedTuple):
    """Votes, annotator weights and level posteriors of a dataset's candidates."""

    votes: dict[str, TaskVotes]
    """By task. A candidate that the lead decided has the lead's rating alone."""
    weights: dict[Axis, dict[str, float]]
    """By axis and annotator, 0..1, from `editloop.statistics.reliability`. A lead has 1."""
    levels: Mapping[Axis, Mapping[tuple[str, str], Levels]]
    """By axis, then (task, candidate): probabilities of the true levels given the votes and their annotators, (4,)."""


def fit_labels(judged: Sequence[Vote], decided: Sequence[Vote]) -> PreferenceLabels:
    """Fit annotator weights and level posteriors to votes.

    A lead's decision replaces the votes on its candidate after the fit: weights are fitted to the votes alone.

    Args:
        judged: The annotators' votes.
        decided: The lead's decisions.
    """
    votes: dict[str, TaskVotes] = {}
    for vote in judged:
        by_annotator = votes.setdefault(vote.task_id, {}).setdefault(vote.candidate_id, {})
        by_annotator[vote.annotator] = RATINGS[vote.instruction_following, vote.visual_quality]
    table = _table(judged)
    fits = {axis: reliability(table, axis) for axis in AXES}
    weights = {axis: {who: round(weight, DIGITS) for who, weight in fit.weights.items()} for axis, fit in fits.items()}
    levels = {axis: dict(fit.posterior) for axis, fit in fits.items()}
    for decision in decided:
        rating = RATINGS[decision.instruction_following, decision.visual_quality]
        votes.setdefault(decision.task_id, {})[decision.candidate_id] = {decision.annotator: rating}
        for axis, level in zip(AXES, rating, strict=True):
            weights[axis][decision.annotator] = 1.0
            sure = np.array(LEVELS) == level
            levels[axis][decision.task_id, decision.candidate_id] = sure.astype(np.float64)
    return PreferenceLabels(votes, weights, levels)


def mean_rating(ratings: Mapping[str, Rating], axis: Axis, weights: Mapping[str, float]) -> float:
    """Return the weighted mean of a candidate's ratings on one axis, 1..4.

    Args:
        ratings: At least one rating, by annotator.
        axis: The axis.
        weights: Weights by annotator. A missing one is 1; at least LEAST_WEIGHT is used.
    """
    axis_index = AXES.index(axis)
    shares = {who: max(weights.get(who, 1.0), LEAST_WEIGHT) for who in ratings}
    return sum(share * ratings[who][axis_index] for who, share in shares.items()) / sum(shares.values())


def preference_pairs(tasks: Sequence[EditTask], labels: PreferenceLabels) -> list[dict[str, Any]]:
    """Return all pairs a < b of a task's candidates that share an annotator, task after task.

    An order is +1 (a preferred), 0 (tie: a margin within TIE) or -1 (b preferred). A margin is a's mean rating minus
    b's, in rating steps, over the annotators who rated both, weighted by their weights on the axis. `overall_order` is
    that of the sum of both axes' margins. A confidence is the probability of the order, 0..1 (`order_confidence`).

    Args:
        tasks: The tasks. Those without votes give no pairs.
        labels: Their labels.

    Returns:
        Rows of schema PAIR_ROWS.
    """
    rows = [row for task in tasks for row in _ordered(task, labels)]
    if not rows:
        return []
    levels: dict[str, list[Levels]] = {}
    for side in ("a", "b"):
        of_axes = [np.stack([labels.levels[axis][row["task_id"], row[side]] for row in rows]) for axis in AXES]
        levels[side] = [*of_axes, _sum_distribution(*of_axes)]
    names = [f"{axis}_confidence" for axis in AXES], [f"{axis}_order" for axis in AXES]
    for index, (name, order) in enumerate(zip((*names[0], "confidence"), (*names[1], "overall_order"), strict=True)):
        orders = np.array([row[order] for row in rows])
        for row, sure in zip(rows, order_confidence(orders, levels["a"][index], levels["b"][index]), strict=True):
            row[name] = float(sure)
    return rows


def order_confidence(order: NDArray[np.integer] | int, a: Levels, b: Levels) -> NDArray[np.float64]:
    """Return the probability of orders, 0..1.

    For +1 and -1 it is the probability that the one level is above the other, given that they differ; for 0, that they
    are equal.

    Args:
        order: +1, 0 or -1, (...).
        a: Probabilities of the first candidate's levels, (..., L).
        b: Probabilities of the second candidate's levels, (..., L), independent of `a`.

    Returns:
        (...), rounded to DIGITS.
    """
    first, second = np.asarray(order) > 0, np.asarray(order) == 0
    above = (a[..., 1:] * np.cumsum(b, axis=-1)[..., :-1]).sum(axis=-1)
    below = (b[..., 1:] * np.cumsum(a, axis=-1)[..., :-1]).sum(axis=-1)
    differ = above + below
    with np.errstate(invalid="ignore", divide="ignore"):
        sure = np.where(differ < 1e-9, 0.5, np.where(first, above, below) / differ)
    confidence: NDArray[np.float64] = np.round(np.where(second, (a * b).sum(axis=-1), sure), DIGITS)
    return confidence


def _ordered(task: EditTask, labels: PreferenceLabels) -> Iterator[dict[str, Any]]:
    """Yield the task's pairs with orders and margins, without confidences."""
    votes = labels.votes.get(task.task_id, {})
    for a, b in combinations(
        sorted(candidate.candidate_id for candidate in task.candidates if candidate.candidate_id in votes), 2
    ):
        raters = sorted(votes[a].keys() & votes[b].keys())
        if not raters:
            continue
        shared = [{who: votes[candidate][who] for who in raters} for candidate in (a, b)]
        means = {axis: [mean_rating(ratings, axis, labels.weights[axis]) for ratings in shared] for axis in AXES}
        margin = {axis: round(mean_a - mean_b, DIGITS) for axis, (mean_a, mean_b) in means.items()}
        yield {
            "task_id": task.task_id,
            "a": a,
            "b": b,
            **{f"{axis}_order": _order(margin[axis]) for axis in AXES},
            "overall_order": _order(sum(margin.values())),
            **{f"{axis}_margin": margin[axis] for axis in AXES},
        }


def _sum_distribution(a: Levels, b: Levels) -> Levels:
    """Return the distribution of the sum of two independent levels: (P, L) and (P, L) to (P, 2L - 1)."""
    total = np.zeros((len(a), a.shape[1] + b.shape[1] - 1))
    for level in range(a.shape[1]):
        total[:, level : level + b.shape[1]] += a[:, level : level + 1] * b
    return total


def _order(margin: float) -> int:
    return (margin > TIE) - (margin < -TIE)


def _table(judged: Sequence[Vote]) -> pd.DataFrame:
    """Return the columns of a `judgement_table` that `reliability` reads."""
    columns = ["task_id", "candidate_id", "annotator", *AXES]
    table = pd.DataFrame(map(attrgetter(*Vote._fields), judged), columns=columns).astype(
        {column: TYPES[column] for column in columns}
    )
    return with_items(table)

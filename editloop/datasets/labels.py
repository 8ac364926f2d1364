"""From votes to labels: who counts how much, which of two candidates is better, and how sure that is."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask
from editloop.datasets.votes import RatedCandidate
from editloop.statistics.reliability import reliability_of

LEAST_WEIGHT = 0.01
"""Where all who rated a candidate tell nothing, they count alike."""
TIE = 0.15
"""Rating steps; a smaller margin is a tie, or small differences in weight would order what votes leave open."""
DIGITS = 4
"""Confidences and weights are rounded: the last bits of a fit are not worth another dataset."""

Rating = tuple[int, int]
"""Instruction following, visual quality, each 1..4: in the order of AXES."""
RATINGS = {
    (following, quality): (following, quality)
    for following, quality in product(range(LOWEST_RATING, HIGHEST_RATING + 1), repeat=2)
}
"""Each rating once: a large dataset has few different ones."""
TaskVotes = dict[str, dict[str, Rating]]
"""candidate_id -> annotator -> rating."""
Levels = NDArray[np.floating]
"""Probability of each level, (L,) or (..., L)."""


class PreferenceLabels(NamedTuple):
    """All that is said of a campaign's candidates."""

    votes: dict[str, TaskVotes]
    """By task. Of a candidate that the lead decided there is the lead's rating alone."""
    weights: dict[Axis, dict[str, float]]
    """By axis and annotator, 0..1: `editloop.statistics.reliability`; a lead has 1."""
    levels: Mapping[Axis, Mapping[tuple[str, str], Levels]]
    """By axis, then task and candidate: how probable each true level is, given the votes and who gave them; (4,)."""


def fit_labels(judged: Sequence[RatedCandidate], decided: Sequence[RatedCandidate]) -> PreferenceLabels:
    """Votes, annotators' weights and the probable levels; a lead's decisions take the votes' place here, and only
    here."""
    votes: dict[str, TaskVotes] = {}
    for vote in judged:
        by_annotator = votes.setdefault(vote.task_id, {}).setdefault(vote.candidate_id, {})
        by_annotator[vote.annotator] = RATINGS[vote.instruction_following, vote.visual_quality]
    table = _table(judged)
    fits = {axis: reliability_of(table, axis) for axis in AXES}
    weights = {axis: {who: round(weight, DIGITS) for who, weight in fit.weights.items()} for axis, fit in fits.items()}
    levels = {axis: dict(fit.posterior) for axis, fit in fits.items()}
    for decision in decided:
        rating = RATINGS[decision.instruction_following, decision.visual_quality]
        votes.setdefault(decision.task_id, {})[decision.candidate_id] = {decision.annotator: rating}
        for axis, level in zip(AXES, rating, strict=True):
            weights[axis][decision.annotator] = 1.0
            sure = np.arange(LOWEST_RATING, HIGHEST_RATING + 1) == level
            levels[axis][decision.task_id, decision.candidate_id] = sure.astype(np.float64)
    return PreferenceLabels(votes, weights, levels)


def mean_rating(ratings: Mapping[str, Rating], axis: Axis, weights: Mapping[str, float]) -> float:
    """The mean of a candidate's ratings on one axis, 1..4, each annotator by their weight."""
    axis_index = AXES.index(axis)
    shares = {who: max(weights.get(who, 1.0), LEAST_WEIGHT) for who in ratings}
    return sum(share * ratings[who][axis_index] for who, share in shares.items()) / sum(shares.values())


def preference_pairs(tasks: Sequence[EditTask], labels: PreferenceLabels) -> list[dict[str, Any]]:
    """All pairs a < b of the same task's candidates that share an annotator, with their orders, margins and
    confidences, task after task.

    Orders are +1 (a preferred), 0 (tie, within TIE), -1 (b) by the mean over the annotators who rated both, each by
    their weight on the axis; `overall` adds the axes. A margin is a's mean minus b's, in rating steps. A confidence is
    the probability of the order given the votes and who gave them, 0..1 (`order_confidence`).
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
    """How probable orders are, 0..1: of +1 and -1, that one level is above the other given that they differ; of 0,
    that they are the same. order: (...); a, b: probabilities of the levels, (..., L), independent of each other."""
    first, second = np.asarray(order) > 0, np.asarray(order) == 0
    above = (a[..., 1:] * np.cumsum(b, axis=-1)[..., :-1]).sum(axis=-1)
    below = (b[..., 1:] * np.cumsum(a, axis=-1)[..., :-1]).sum(axis=-1)
    differ = above + below
    with np.errstate(invalid="ignore", divide="ignore"):
        sure = np.where(differ < 1e-9, 0.5, np.where(first, above, below) / differ)
    confidence: NDArray[np.float64] = np.round(np.where(second, (a * b).sum(axis=-1), sure), DIGITS)
    return confidence


def _ordered(task: EditTask, labels: PreferenceLabels) -> Iterator[dict[str, Any]]:
    """The task's pairs with orders and margins."""
    votes = labels.votes.get(task.task_id, {})
    for a, b in combinations(
        sorted(candidate.candidate_id for candidate in task.candidates if candidate.candidate_id in votes), 2
    ):
        raters = sorted(votes[a].keys() & votes[b].keys())
        if not raters:
            continue
        margin = {}
        for axis in AXES:
            mean = [
                mean_rating({who: votes[candidate][who] for who in raters}, axis, labels.weights[axis])
                for candidate in (a, b)
            ]
            margin[axis] = round(mean[0] - mean[1], DIGITS)
        yield {
            "task_id": task.task_id,
            "a": a,
            "b": b,
            **{f"{axis}_order": _order(margin[axis]) for axis in AXES},
            "overall_order": _order(sum(margin.values())),
            **{f"{axis}_margin": margin[axis] for axis in AXES},
        }


def _sum_distribution(a: Levels, b: Levels) -> Levels:
    """Probability of the sum of two independent levels: (P, L) and (P, L) to (P, 2L - 1)."""
    total = np.zeros((len(a), a.shape[1] + b.shape[1] - 1))
    for level in range(a.shape[1]):
        total[:, level : level + b.shape[1]] += a[:, level : level + 1] * b
    return total


def _order(margin: float) -> int:
    return (margin > TIE) - (margin < -TIE)


def _table(judged: Sequence[RatedCandidate]) -> pd.DataFrame:
    """What `reliability_of` reads of a `judgement_table`."""
    table = pd.DataFrame(
        {
            "task_id": pd.Categorical([vote.task_id for vote in judged]),
            "candidate_id": pd.Categorical([vote.candidate_id for vote in judged]),
            "annotator": pd.Categorical([vote.annotator for vote in judged]),
            "if": np.array([vote.instruction_following for vote in judged], np.int8),
            "vq": np.array([vote.visual_quality for vote in judged], np.int8),
        }
    )
    table["item"] = table.groupby(["task_id", "candidate_id"], observed=True, sort=True).ngroup().astype("int64")
    return table

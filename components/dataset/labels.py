"""From votes to labels: who counts how much, which of two candidates is better, and how sure that is."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotation.quality.reliability import reliability_of
from annotation.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask
from components.dataset.votes import Rated

LEAST_WEIGHT = 0.01
"""Where all who rated a candidate tell nothing, they count alike."""
TIE = 0.15
"""Rating steps; a smaller margin is a tie, or small differences in weight would order what votes leave open."""
DIGITS = 4
"""Confidences and weights are rounded: the last bits of a fit are not worth another dataset."""

Rating = tuple[int, int]
"""Instruction following, visual quality, each 1..4: in the order of AXES."""
RATINGS = {(one, other): (one, other) for one, other in product(range(LOWEST_RATING, HIGHEST_RATING + 1), repeat=2)}
"""Each rating once: a large dataset has few different ones."""
Votes = dict[str, dict[str, Rating]]
"""candidate_id -> annotator -> rating."""
Levels = NDArray[np.floating]
"""Probability of each level, (L,) or (..., L)."""


class Labels(NamedTuple):
    """All that is said of a campaign's candidates."""

    votes: dict[str, Votes]
    """By task. Of a candidate that the lead decided there is the lead's rating alone."""
    weights: dict[Axis, dict[str, float]]
    """By axis and annotator, 0..1: `annotation.quality.reliability`; a lead has 1."""
    levels: Mapping[Axis, Mapping[tuple[str, str], Levels]]
    """By axis, then task and candidate: how probable each true level is, given the votes and who gave them; (4,)."""


def labels_of(judged: Sequence[Rated], decided: Sequence[Rated]) -> Labels:
    """Votes, annotators' weights and the probable levels; a lead's decisions take the votes' place here, and only
    here."""
    votes: dict[str, Votes] = {}
    for one in judged:
        given = votes.setdefault(one.task_id, {}).setdefault(one.candidate_id, {})
        given[one.annotator] = RATINGS[one.instruction_following, one.visual_quality]
    table = _table(judged)
    fits = {axis: reliability_of(table, axis) for axis in AXES}
    weights = {axis: {who: round(weight, DIGITS) for who, weight in fit.weights.items()} for axis, fit in fits.items()}
    levels = {axis: dict(fit.posterior) for axis, fit in fits.items()}
    for one in decided:
        rating = RATINGS[one.instruction_following, one.visual_quality]
        votes.setdefault(one.task_id, {})[one.candidate_id] = {one.annotator: rating}
        for axis, level in zip(AXES, rating, strict=True):
            weights[axis][one.annotator] = 1.0
            sure = np.arange(LOWEST_RATING, HIGHEST_RATING + 1) == level
            levels[axis][one.task_id, one.candidate_id] = sure.astype(np.float64)
    return Labels(votes, weights, levels)


def mean_rating(given: Mapping[str, Rating], axis: Axis, weights: Mapping[str, float]) -> float:
    """The mean of a candidate's ratings on one axis, 1..4, each annotator by their weight."""
    place = AXES.index(axis)
    shares = {who: max(weights.get(who, 1.0), LEAST_WEIGHT) for who in given}
    return sum(share * given[who][place] for who, share in shares.items()) / sum(shares.values())


def pairs(tasks: Sequence[EditTask], labels: Labels) -> list[dict[str, Any]]:
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
        levels[side] = [*of_axes, _of_sum(*of_axes)]
    names = [f"{axis}_confidence" for axis in AXES], [f"{axis}_order" for axis in AXES]
    for place, (name, order) in enumerate(zip((*names[0], "confidence"), (*names[1], "overall_order"), strict=True)):
        orders = np.array([row[order] for row in rows])
        for row, sure in zip(rows, order_confidence(orders, levels["a"][place], levels["b"][place]), strict=True):
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
    found: NDArray[np.float64] = np.round(np.where(second, (a * b).sum(axis=-1), sure), DIGITS)
    return found


def _ordered(task: EditTask, labels: Labels) -> Iterator[dict[str, Any]]:
    """The task's pairs with orders and margins."""
    votes = labels.votes.get(task.task_id, {})
    for a, b in combinations(sorted(one.candidate_id for one in task.candidates if one.candidate_id in votes), 2):
        both = sorted(votes[a].keys() & votes[b].keys())
        if not both:
            continue
        margin = {}
        for axis in AXES:
            mean = [mean_rating({who: votes[one][who] for who in both}, axis, labels.weights[axis]) for one in (a, b)]
            margin[axis] = round(mean[0] - mean[1], DIGITS)
        yield {
            "task_id": task.task_id,
            "a": a,
            "b": b,
            **{f"{axis}_order": _order(margin[axis]) for axis in AXES},
            "overall_order": _order(sum(margin.values())),
            **{f"{axis}_margin": margin[axis] for axis in AXES},
        }


def _of_sum(a: Levels, b: Levels) -> Levels:
    """Probability of the sum of two independent levels: (P, L) and (P, L) to (P, 2L - 1)."""
    whole = np.zeros((len(a), a.shape[1] + b.shape[1] - 1))
    for place in range(a.shape[1]):
        whole[:, place : place + b.shape[1]] += a[:, place : place + 1] * b
    return whole


def _order(margin: float) -> int:
    return (margin > TIE) - (margin < -TIE)


def _table(judged: Sequence[Rated]) -> pd.DataFrame:
    """What `reliability_of` reads of a `judgement_table`."""
    table = pd.DataFrame(
        {
            "task_id": pd.Categorical([one.task_id for one in judged]),
            "candidate_id": pd.Categorical([one.candidate_id for one in judged]),
            "annotator": pd.Categorical([one.annotator for one in judged]),
            "if": np.array([one.instruction_following for one in judged], np.int8),
            "vq": np.array([one.visual_quality for one in judged], np.int8),
        }
    )
    table["item"] = table.groupby(["task_id", "candidate_id"], observed=True, sort=True).ngroup().astype("int64")
    return table

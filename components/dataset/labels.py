"""From votes to labels: who counts how much, which of two candidates is better, and how sure that is."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from annotation.quality.reliability import reliability
from annotation.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, Decision, EditTask, Judgement

LEAST_WEIGHT = 0.01
"""Where all who rated a candidate tell nothing, they count alike."""
TIE = 0.15
"""Rating steps; a smaller margin is a tie, or small differences in weight would order what votes leave open."""
DIGITS = 4
"""Confidences and weights are rounded: the last bits of a fit are not worth another dataset."""

Rating = tuple[int, int]
"""Instruction following, visual quality, each 1..4: in the order of AXES."""
Votes = dict[str, dict[str, Rating]]
"""candidate_id -> annotator -> rating."""
Levels = NDArray[np.floating]
"""Probability of each level, (L,)."""


class Labels(NamedTuple):
    """All that is said of a campaign's candidates."""

    votes: dict[str, Votes]
    """By task. Of a candidate that the lead decided there is the lead's rating alone."""
    weights: dict[Axis, dict[str, float]]
    """By axis and annotator, 0..1: `annotation.quality.reliability`; a lead has 1."""
    levels: Mapping[Axis, Mapping[tuple[str, str], Levels]]
    """By axis, then task and candidate: how probable each true level is, given the votes and who gave them; (4,)."""


def labels_of(judgements: Sequence[Judgement], decisions: Sequence[Decision]) -> Labels:
    """Votes, annotators' weights and the probable levels; decisions take the votes' place here, and only here."""
    votes: dict[str, Votes] = {}
    for one in judgements:
        given = votes.setdefault(one.task_id, {}).setdefault(one.candidate_id, {})
        given[one.annotator] = (one.instruction_following, one.visual_quality)
    fits = {axis: reliability(judgements, axis) for axis in AXES}
    weights = {axis: {who: round(weight, DIGITS) for who, weight in fit.weights.items()} for axis, fit in fits.items()}
    levels = {axis: dict(fit.posterior) for axis, fit in fits.items()}
    for decision in decisions:
        rating = (decision.instruction_following, decision.visual_quality)
        votes.setdefault(decision.task_id, {})[decision.candidate_id] = {decision.lead: rating}
        for axis, level in zip(AXES, rating, strict=True):
            weights[axis][decision.lead] = 1.0
            sure = np.arange(LOWEST_RATING, HIGHEST_RATING + 1) == level
            levels[axis][decision.task_id, decision.candidate_id] = sure.astype(np.float64)
    return Labels(votes, weights, levels)


def mean_rating(given: Mapping[str, Rating], axis: Axis, weights: Mapping[str, float]) -> float:
    """The mean of a candidate's ratings on one axis, 1..4, each annotator by their weight."""
    place = AXES.index(axis)
    shares = {who: max(weights.get(who, 1.0), LEAST_WEIGHT) for who in given}
    return sum(share * given[who][place] for who, share in shares.items()) / sum(shares.values())


def pairs(task: EditTask, labels: Labels) -> list[dict[str, Any]]:
    """All pairs a < b of the task's candidates that share an annotator, with their orders, margins and confidences.

    Orders are +1 (a preferred), 0 (tie, within TIE), -1 (b) by the mean over the annotators who rated both, each by
    their weight on the axis; `overall` adds the axes. A margin is a's mean minus b's, in rating steps. A confidence is
    the probability of the order given the votes and who gave them, 0..1 (`order_confidence`).
    """
    votes, rows = labels.votes.get(task.task_id, {}), []
    for a, b in combinations(sorted(one.candidate_id for one in task.candidates if one.candidate_id in votes), 2):
        both = sorted(votes[a].keys() & votes[b].keys())
        if not both:
            continue
        margin = {}
        for axis in AXES:
            mean = [mean_rating({who: votes[one][who] for who in both}, axis, labels.weights[axis]) for one in (a, b)]
            margin[axis] = round(mean[0] - mean[1], DIGITS)
        orders = {axis: _order(margin[axis]) for axis in AXES}
        overall = _order(sum(margin.values()))
        of_a, of_b = ([labels.levels[axis][task.task_id, one] for axis in AXES] for one in (a, b))
        sure = {axis: order_confidence(orders[axis], of_a[i], of_b[i]) for i, axis in enumerate(AXES)}
        rows.append(
            {
                "task_id": task.task_id,
                "a": a,
                "b": b,
                **{f"{axis}_order": orders[axis] for axis in AXES},
                "overall_order": overall,
                **{f"{axis}_margin": margin[axis] for axis in AXES},
                **{f"{axis}_confidence": sure[axis] for axis in AXES},
                "confidence": order_confidence(overall, np.convolve(of_a[0], of_a[1]), np.convolve(of_b[0], of_b[1])),
            }
        )
    return rows


def order_confidence(order: int, a: Levels, b: Levels) -> float:
    """How probable an order is, 0..1: for +1 and -1, that one level is above the other given that they differ; for 0,
    that they are the same. a, b: probabilities of the levels, (L,), independent of each other."""
    joint = np.outer(a, b)
    above, below = float(np.tril(joint, -1).sum()), float(np.triu(joint, 1).sum())
    if order == 0:
        return round(float(np.trace(joint)), DIGITS)
    if above + below < 1e-9:
        return 0.5
    return round((above if order > 0 else below) / (above + below), DIGITS)


def _order(margin: float) -> int:
    return (margin > TIE) - (margin < -TIE)

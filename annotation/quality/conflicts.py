"""Find the tasks on which annotators disagree so strongly that the lead should decide."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations

from editloop.data.vocabulary import AXIS_NAMES, Axis, Judgement

FAR_APART = 2
"""Levels. A difference of one level on a 4-point scale is a matter of taste; two levels are a different opinion."""

Levels = dict[Axis, int]
Ratings = dict[str, dict[str, Levels]]
"""Of one task: levels by candidate and annotator."""


def conflicts(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """Return the tasks in conflict, with reasons.

    A task is in conflict if two annotators (1) rate one candidate two or more levels apart on an axis, or (2) order
    two candidates in opposite ways by the sum of both axes, each by two or more points.

    Args:
        judgements: The judgements of a campaign.

    Returns:
        Reasons by task id, sorted by id. A reason is a short text that names candidates but no annotator.
    """
    reasons_by_task = {}
    for task, candidates in sorted(ratings_by_task(judgements).items()):
        reasons = [*_spreads(candidates), *_opposites(candidates)]
        if reasons:
            reasons_by_task[task] = reasons
    return reasons_by_task


def ratings_by_task(judgements: Iterable[Judgement]) -> dict[str, Ratings]:
    """Return the levels of every task, by candidate and annotator.

    Args:
        judgements: Judgements on pages of one kind.
    """
    ratings: dict[str, Ratings] = defaultdict(lambda: defaultdict(dict))
    for judgement in judgements:
        levels: Levels = {"if": judgement.instruction_following, "vq": judgement.visual_quality}
        ratings[judgement.task_id][judgement.candidate_id][judgement.annotator] = levels
    return ratings


def _spreads(candidates: Ratings) -> list[str]:
    reasons = []
    for candidate, votes in sorted(candidates.items()):
        for axis, name in AXIS_NAMES.items():
            levels = [vote[axis] for vote in votes.values()]
            if max(levels) - min(levels) >= FAR_APART:
                reasons.append(f"{name} of {candidate}: {min(levels)} to {max(levels)}")
    return reasons


def _opposites(candidates: Ratings) -> list[str]:
    reasons = []
    for a, b in combinations(sorted(candidates), 2):
        raters = candidates[a].keys() & candidates[b].keys()
        differences = [sum(candidates[a][who].values()) - sum(candidates[b][who].values()) for who in raters]
        if differences and max(differences) >= FAR_APART and min(differences) <= -FAR_APART:
            reasons.append(f"{a} and {b} are ordered opposite ways")
    return reasons

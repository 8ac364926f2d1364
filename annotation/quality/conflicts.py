"""The tasks that annotators disagree on so far that somebody should decide."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from editloop.data.vocabulary import AXIS_NAMES, Axis, Judgement

FAR_APART = 2
"""Levels. Neighbouring levels of a 4-point scale are a matter of temper; two levels are another opinion."""

Levels = dict[Axis, int]


def conflicts(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """Tasks in conflict by id, sorted, each with its reasons as sentences that name candidates but no annotator.

    A task is in conflict where two annotators (1) rate one candidate two levels or more apart on an axis, or (2) order
    two candidates opposite ways by the sum of both axes, each by two points or more.
    """
    ratings: dict[str, dict[str, dict[str, Levels]]] = defaultdict(lambda: defaultdict(dict))
    for judgement in judgements:
        levels: Levels = {"if": judgement.instruction_following, "vq": judgement.visual_quality}
        ratings[judgement.task_id][judgement.candidate_id][judgement.annotator] = levels
    reasons_by_task = {}
    for task, candidates in sorted(ratings.items()):
        reasons = [*_spreads(candidates), *_opposites(candidates)]
        if reasons:
            reasons_by_task[task] = reasons
    return reasons_by_task


def _spreads(candidates: dict[str, dict[str, Levels]]) -> list[str]:
    reasons = []
    for candidate, votes in sorted(candidates.items()):
        for axis, name in AXIS_NAMES.items():
            levels = [vote[axis] for vote in votes.values()]
            if max(levels) - min(levels) >= FAR_APART:
                reasons.append(f"{name} of {candidate}: {min(levels)} to {max(levels)}")
    return reasons


def _opposites(candidates: dict[str, dict[str, Levels]]) -> list[str]:
    reasons = []
    for a, b in combinations(sorted(candidates), 2):
        raters = candidates[a].keys() & candidates[b].keys()
        differences = [sum(candidates[a][who].values()) - sum(candidates[b][who].values()) for who in raters]
        if differences and max(differences) >= FAR_APART and min(differences) <= -FAR_APART:
            reasons.append(f"{a} and {b} are ordered opposite ways")
    return reasons

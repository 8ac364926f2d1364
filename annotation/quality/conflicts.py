"""The tasks that annotators disagree on so far that somebody should decide."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from annotation.vocabulary import AXIS_NAMES, Axis, Judgement

FAR_APART = 2
"""Levels. Neighbouring levels of a 4-point scale are a matter of temper; two levels are another opinion."""

Levels = dict[Axis, int]


def conflicts(judgements: Sequence[Judgement]) -> dict[str, list[str]]:
    """Tasks in conflict by id, sorted, each with its reasons as sentences that name candidates but no annotator.

    A task is in conflict where two annotators (1) rate one candidate two levels or more apart on an axis, or (2) order
    two candidates opposite ways by the sum of both axes, each by two points or more.
    """
    ratings: dict[str, dict[str, dict[str, Levels]]] = defaultdict(lambda: defaultdict(dict))
    for one in judgements:
        said: Levels = {"if": one.instruction_following, "vq": one.visual_quality}
        ratings[one.task_id][one.candidate_id][one.annotator] = said
    found = {}
    for task, candidates in sorted(ratings.items()):
        reasons = [*_spreads(candidates), *_opposites(candidates)]
        if reasons:
            found[task] = reasons
    return found


def _spreads(candidates: dict[str, dict[str, Levels]]) -> list[str]:
    found = []
    for candidate, given in sorted(candidates.items()):
        for axis, name in AXIS_NAMES.items():
            levels = [said[axis] for said in given.values()]
            if max(levels) - min(levels) >= FAR_APART:
                found.append(f"{name} of {candidate}: {min(levels)} to {max(levels)}")
    return found


def _opposites(candidates: dict[str, dict[str, Levels]]) -> list[str]:
    found = []
    for a, b in combinations(sorted(candidates), 2):
        both = candidates[a].keys() & candidates[b].keys()
        ahead = [sum(candidates[a][who].values()) - sum(candidates[b][who].values()) for who in both]
        if ahead and max(ahead) >= FAR_APART and min(ahead) <= -FAR_APART:
            found.append(f"{a} and {b} are ordered opposite ways")
    return found

"""Ratings from preferences: each annotator's order of a task's edits, and what its ranks count as.

A preference is no rating. The team states which rating each place in an order counts as; an order is made of what the
annotator said and nothing else (`preference_order`). Answers that give no such order are left out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from annotation.formats.preference_order import Groups, ordered_answers
from annotation.formats.rated_edits import GivenRating
from editloop.data.vocabulary import AXES, Axis

CANDIDATE_ID = re.compile(r"\b[0-9a-f]{16}\b")


class PreferenceAnswer(NamedTuple):
    """One answer, whose edits have our candidate ids."""

    location: str
    comparisons: Mapping[Axis, Sequence[Groups]]
    positions: Mapping[str, int]
    """Index on the page of each edit."""
    seconds: float | None
    created_at: datetime | None


class RankedEdit(NamedTuple):
    """The rating of an edit that follows from an annotator's answers."""

    location: str
    candidate: str
    rating: GivenRating


LeftOutAnswer = tuple[str, str]
"""Location of an answer that is left out, and why."""


def ratings_of_answers(
    annotator: str, answers: Sequence[PreferenceAnswer], ranks: Mapping[int, Sequence[int]], names: Mapping[str, str]
) -> tuple[list[RankedEdit], list[LeftOutAnswer]]:
    """Return the ratings that follow from all answers of an annotator on a task, and the answers that are left out.

    Args:
        annotator: The account's name.
        answers: The answers.
        ranks: Ratings by the number of ranks of an order, the best first.
        names: What messages call the edits, by candidate id.
    """
    taken, left_out = list(answers), list[LeftOutAnswer]()
    orders: dict[Axis, Groups] = {}
    while True:
        faults: dict[str, str] = {}
        for axis in AXES:
            pairs = [(answer.location, answer.comparisons[axis]) for answer in taken]
            orders[axis], out = ordered_answers(pairs)
            faults |= {location: f"{axis}: {_named(reason, names)}" for location, reason in out}
        left_out += faults.items()
        if not faults:
            break
        taken = [answer for answer in taken if answer.location not in faults]
    levels: dict[Axis, dict[str, int]] = {}
    for axis, order in orders.items():
        if order and len(order) not in ranks:
            stated = ", ".join(map(str, sorted(ranks)))
            rule = f"{axis}: an order of {len(order)} ranks; ranks states {stated}. State what {len(order)} count as"
            return [], [*left_out, *((answer.location, rule) for answer in taken)]
        levels[axis] = {
            candidate: level
            for group, level in zip(order, ranks[len(order)] if order else (), strict=True)
            for candidate in group
        }
    first, second = (levels[axis] for axis in AXES)
    for candidate in sorted(first.keys() ^ second.keys()):
        location = next(answer.location for answer in taken if candidate in answer.positions)
        axis = AXES[candidate in second]
        left_out.append((location, f"{names[candidate]}: in the order of {axis} alone; a vote has both axes"))
    return list(_ratings(annotator, taken, levels)), left_out


def _ratings(
    annotator: str, answers: Sequence[PreferenceAnswer], levels: Mapping[Axis, Mapping[str, int]]
) -> Iterator[RankedEdit]:
    seconds = [answer.seconds for answer in answers]
    times = [answer.created_at for answer in answers if answer.created_at]
    first, second = (levels[axis] for axis in AXES)
    for candidate in sorted(first.keys() & second.keys()):
        answer = next(answer for answer in answers if candidate in answer.positions)
        rating = GivenRating(
            annotator,
            (first[candidate], second[candidate]),
            answer.positions[candidate],
            None if None in seconds else sum(filter(None, seconds)),
            max(times, default=None),
        )
        yield RankedEdit(answer.location, candidate, rating)


def _named(reason: str, names: Mapping[str, str]) -> str:
    return CANDIDATE_ID.sub(lambda match: names.get(match[0], match[0]), reason)

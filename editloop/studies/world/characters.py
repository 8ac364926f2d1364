"""Simulated experts: their characters, and how they rate edits that the oracle has scored.

A rating depends only on (seed, expert, kind of page, task, candidate), and for faulty characters also on the
candidate's position on the page or the campaign's progress. It never depends on the order of calls or on time.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from editloop.content import sha256_json
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, Kind

LARGEST_BIAS = 0.35
"""In levels. An expert's bias on an axis is uniform in -LARGEST_BIAS..LARGEST_BIAS."""
LEAST_NOISE, MOST_NOISE = 0.3, 0.55
"""In levels. The standard deviation of an expert's noise is uniform between these."""

Character = Literal["honest", "spammer", "sleepy", "biased", "drifting", "position-biased"]
SLEEPS = 0.5
"""Share of the pages that a sleepy expert clicks through, 0..1."""
SLEEPY_LEVEL = 3
"""The level of all ratings on such a page."""
SHIFT = -1.0
"""In levels. A biased expert's ratings are shifted by this; a drifting expert's shift grows from 0 to this."""
FIRST_PLACE = 1.0
"""In levels. A position-biased expert adds this at the first position, falling linearly to its negative at the last."""
HONEST_SECONDS, HASTY_SECONDS = (10, 30), (2, 4)
"""Seconds for a page, (least, most): of an expert who looks, and of one who clicks through."""


class Expert(NamedTuple):
    """A simulated expert. Bias by axis and standard deviation of the noise are in levels of the rating scale."""

    name: str
    bias: dict[Axis, float]
    noise: float
    character: Character = "honest"


class PageView(NamedTuple):
    """A page as an expert sees it."""

    kind: Kind
    task: str
    candidates: Sequence[str]
    progress: float
    """Progress of the campaign at this page, 0..1."""


class SimulatedAnswer(NamedTuple):
    """An expert's answer: {axis: 1..4} for each position on the page, and the time in seconds."""

    ratings: list[dict[Axis, int]]
    seconds: float


def expert(name: str, seed: int, character: Character = "honest") -> Expert:
    """Draw an expert's bias and noise.

    Args:
        name: Name of the expert.
        seed: The same seed and name give the same expert.
        character: The expert's character.
    """
    rng = _rng(seed, "expert", name)
    bias: dict[Axis, float] = {axis: float(rng.uniform(-LARGEST_BIAS, LARGEST_BIAS)) for axis in AXES}
    return Expert(name, bias, float(rng.uniform(LEAST_NOISE, MOST_NOISE)), character)


def answer_page(who: Expert, question: PageView, scores: Sequence[dict[Axis, float]], seed: int) -> SimulatedAnswer:
    """Simulate an expert's answer to a page.

    Args:
        who: The expert.
        question: The page.
        scores: The oracle's scores of the candidates by axis, 0..1, in the page's order.
        seed: Seed of the noise.
    """
    rng = _rng(seed, "page", who.name, question.kind, question.task)
    absent = who.character == "spammer" or (who.character == "sleepy" and rng.random() < SLEEPS)
    seconds = round(float(rng.uniform(*(HASTY_SECONDS if absent else HONEST_SECONDS))), 1)
    if who.character == "spammer":
        return SimulatedAnswer(
            [{axis: int(rng.integers(LOWEST_RATING, HIGHEST_RATING + 1)) for axis in AXES} for _ in scores], seconds
        )
    if absent:
        return SimulatedAnswer([dict.fromkeys(AXES, SLEEPY_LEVEL) for _ in scores], seconds)
    ratings = [
        rate_candidate(
            who, score, seed, question.task, candidate, question.kind, _shift(who.character, question, position)
        )
        for position, (candidate, score) in enumerate(zip(question.candidates, scores, strict=True))
    ]
    return SimulatedAnswer(ratings, seconds)


def rate_candidate(
    who: Expert,
    scores: dict[Axis, float],
    seed: int,
    task: str,
    candidate: str,
    kind: Kind = "task",
    shift: float = 0.0,
) -> dict[Axis, int]:
    """Simulate the rating of a candidate by an expert who looks at it.

    The rating is the oracle's score on the scale's levels, plus bias, shift and normal noise, rounded and clipped.

    Args:
        who: The expert.
        scores: The oracle's scores of the candidate by axis, 0..1.
        seed: Seed of the noise.
        task: Id of the task.
        candidate: Id of the candidate.
        kind: Kind of the page. A page of another kind has other noise.
        shift: Added on both axes, in levels.

    Returns:
        {axis: 1..4}.
    """
    rng = _rng(seed, who.name, task, candidate, *([] if kind == "task" else [kind]))
    levels: dict[Axis, int] = {}
    for axis in AXES:
        level = LOWEST_RATING + (HIGHEST_RATING - LOWEST_RATING) * scores[axis] + who.bias[axis] + shift
        levels[axis] = int(np.clip(round(level + rng.normal(0, who.noise)), LOWEST_RATING, HIGHEST_RATING))
    return levels


def _shift(character: Character, question: PageView, position: int) -> float:
    if character == "biased":
        return SHIFT
    if character == "drifting":
        return SHIFT * question.progress
    if character == "position-biased":
        return FIRST_PLACE * (1 - 2 * position / (len(question.candidates) - 1))
    return 0.0


def _rng(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big"))


def assigned_annotators(task: str, annotators: Sequence[str], overlap: int, seed: int) -> list[str]:
    """Return the annotators who answer a task.

    Args:
        task: Id of the task.
        annotators: All annotators.
        overlap: Number of annotators for a task.
        seed: The same seed and task give the same annotators.
    """
    return sorted(annotators, key=lambda name: sha256_json([seed, task, name]))[:overlap]

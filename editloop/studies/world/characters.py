"""What simulated experts are like, and what one says of an edit that the oracle has scored.

A rating depends only on (seed, expert, kind of page, task, candidate) and, for faulty characters, on what their fault
looks at: the place on the page or how far the campaign is. Never on the order of calls or on time.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from editloop.content import sha256_json
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, Kind

LARGEST_BIAS = 0.35
"""Levels; an honest expert's bias on an axis is drawn evenly from -LARGEST_BIAS to LARGEST_BIAS."""
LEAST_NOISE, MOST_NOISE = 0.3, 0.55
"""Levels; the standard deviation of an expert's noise is drawn evenly from here."""

Character = Literal["honest", "spammer", "sleepy", "biased", "drifting", "position-biased"]
SLEEPS = 0.5
"""Share of the pages that a sleepy expert clicks through."""
SLEEPY_LEVEL = 3
"""What a sleepy expert then says of everything."""
SHIFT = -1.0
"""Levels; a biased expert's shift from the first page on, a drifting one's at the last page."""
FIRST_PLACE = 1.0
"""Levels; what a position-biased expert adds to the first place, falling evenly to the opposite at the last."""
HONEST_SECONDS, HASTY_SECONDS = (10, 30), (2, 4)
"""How long a page takes."""


class Expert(NamedTuple):
    """One simulated expert: bias and noise in levels of the rating scale, and what is wrong with them, if anything."""

    name: str
    bias: dict[Axis, float]
    noise: float
    character: Character = "honest"


class PageView(NamedTuple):
    """A page as an expert meets it."""

    kind: Kind
    task: str
    candidates: Sequence[str]
    progress: float
    """How far the campaign is when the page comes, 0..1."""


class SimulatedAnswer(NamedTuple):
    """An expert's answer: {axis: 1..4} a place, and the seconds it took."""

    ratings: list[dict[Axis, int]]
    seconds: float


def expert(name: str, seed: int, character: Character = "honest") -> Expert:
    """The expert of that name: the same for the same seed."""
    rng = _rng(seed, "expert", name)
    bias: dict[Axis, float] = {axis: float(rng.uniform(-LARGEST_BIAS, LARGEST_BIAS)) for axis in AXES}
    return Expert(name, bias, float(rng.uniform(LEAST_NOISE, MOST_NOISE)), character)


def answer_page(who: Expert, question: PageView, scores: Sequence[dict[Axis, float]], seed: int) -> SimulatedAnswer:
    """What the expert answers; `scores` are the oracle's (0..1) of the candidates, in the page's order."""
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
    """{axis: 1..4} that an expert who looks gives to a candidate whose oracle scores (0..1) are `scores`.

    `shift` (levels) is added on both axes. Asked again on a page of another kind, the noise is another.
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
    """Which annotators answer a task: `overlap` of them, the same for the same seed."""
    return sorted(annotators, key=lambda name: sha256_json([seed, task, name]))[:overlap]

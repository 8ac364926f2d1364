"""Generated campaigns whose annotators' characters are known: what statistics are held against."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np

from editloop.data.vocabulary import Candidate, EditTask, Judgement, Page

BEGIN = datetime(2026, 1, 5, tzinfo=UTC)
EDITORS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta")


class Character(NamedTuple):
    """How an annotator rates; all in levels. Time runs from 0 (their first page) to 1 (their last)."""

    bias: tuple[float, float] = (0.0, 0.0)
    """On instruction following and visual quality."""
    noise: float = 0.4
    drift: float = 0.0
    """Added to the bias by the end."""
    first: float = 0.0
    """Added to what stands at the first place."""
    random_from: float = 2.0
    """Rates at random from this time on; 0 = always."""
    tired: float = 0.0
    """Share of ratings at random at the end, growing evenly from none."""
    constant_from: float = 2.0
    """Says 3 from this time on."""
    flat: float = 0.0
    """Share of the pages on which they say 3 of everything."""
    favours: float = 0.0
    """Added to the first editor's edits."""
    seconds: float = 20.0


def honest(rng):
    """Bias up to 0.35 levels either way, noise of 0.3 to 0.7 levels."""
    return Character(tuple(rng.uniform(-0.35, 0.35, 2)), rng.uniform(0.3, 0.7), seconds=rng.uniform(8, 40))


class Generated(NamedTuple):
    judgements: list[Judgement]
    checks: list[Judgement]
    pages: list[Page]
    tasks: list[EditTask]
    hardness: dict[str, float]
    """By task: what everybody's noise is multiplied by."""


def campaign(characters, tasks=200, places=4, overlap=3, gold=0.05, repeats=0.05, days=20, seed=0, hardness=0.0):
    """`characters`: {name: Character}. Gold (right edits and untouched sources) and repeats are asked of everybody.

    `hardness` is the standard deviation, over tasks, of the logarithm of what a task multiplies everybody's noise by.
    """
    rng = np.random.default_rng(seed)
    hard = np.exp(np.random.default_rng([seed, 1]).normal(0, hardness, tasks + round(gold * tasks)))
    names = list(characters)
    made, pages, asked, factors = [], [], [], {}
    kinds = ["task"] * tasks + ["gold"] * round(gold * tasks)
    for number, kind in enumerate(kinds):
        task = f"t{number:05d}"
        factors[task] = float(hard[number])
        # Edits fail outright, succeed, or lie between: as in a campaign, much lies at the ends of the scale.
        level = np.where(
            rng.random((places, 2)) < 0.4, rng.choice([1.0, 4.0], (places, 2)), rng.uniform(1, 4, (places, 2))
        )
        candidates = tuple(f"{task}-{k}" for k in range(places))
        expected = {}
        if kind == "gold":
            level = rng.choice([1.0, 4.0], (places, 2))
            expected = {
                name: {"if": bounds(values[0]), "vq": bounds(values[1])}
                for name, values in zip(candidates, level, strict=True)
            }
        editors = [EDITORS[k] for k in rng.permutation(places)]
        made.append(
            EditTask(
                task_id=task,
                name=task,
                task_type=("recolour", "remove", "replace")[number % 3],
                instruction="Edit it.",
                source="s",
                candidates=tuple(
                    Candidate(candidate_id=name, image="i", editor=editor)
                    for name, editor in zip(candidates, editors, strict=True)
                ),
            )
        )
        again = kind == "task" and rng.random() < repeats
        for one in [kind, "repeat"] if again else [kind]:
            order = rng.permutation(places)
            everybody = again or kind == "gold"
            who = names if everybody else [names[k] for k in rng.permutation(len(names))[:overlap]]
            pages.append(
                Page(
                    key=f"{one}-{task}",
                    kind=one,
                    task_id=task,
                    instruction="Edit it.",
                    source="s",
                    candidates=tuple(candidates[k] for k in order),
                    images=("i",) * places,
                    overlap=len(who),
                    expected=expected,
                )
            )
            asked.append((pages[-1], level[order], [editors[k] for k in order], who))
    judgements, checks = [], []
    shuffled = [asked[k] for k in rng.permutation(len(asked))]
    answered = dict.fromkeys(names, 0)
    totals = {name: sum(name in who for *_, who in shuffled) for name in names}
    for number, (page, level, by, who) in enumerate(shuffled):
        for name in who:
            answered[name] += 1
            who_here = characters[name]._replace(noise=characters[name].noise * factors[page.task_id])
            given = ratings(who_here, level, by, (answered[name] - 0.5) / totals[name], rng)
            rows = judgements if page.kind == "task" else checks
            when = BEGIN + timedelta(days=days * number / len(shuffled), seconds=int(rng.integers(3600)))
            seconds = float(characters[name].seconds * rng.lognormal(0, 0.4))
            for place, (candidate, (i, v)) in enumerate(zip(page.candidates, given, strict=True)):
                rows.append(
                    Judgement.model_construct(
                        kind=page.kind,
                        task_id=page.task_id,
                        candidate_id=candidate,
                        annotator=name,
                        instruction_following=int(i),
                        visual_quality=int(v),
                        position=place,
                        seconds=seconds,
                        annotation_id=number * 100 + names.index(name),
                        created_at=when,
                    )
                )
    return Generated(judgements, checks, pages, made, factors)


def bounds(level):
    return (3, 4) if level > 2.5 else (1, 2)


def ratings(who, level, editors, time, rng):
    """(places, 2) of 1..4."""
    seen = level + np.array(who.bias) + who.drift * time + rng.normal(0, who.noise, level.shape)
    seen[0] += who.first
    seen[[editor == EDITORS[0] for editor in editors]] += who.favours
    given = np.clip(np.round(seen), 1, 4)
    random = rng.integers(1, 5, level.shape)
    given = np.where(rng.random(level.shape) < who.tired * time, random, given)
    if time >= who.random_from:
        given = random
    return np.full(level.shape, 3) if time >= who.constant_from or rng.random() < who.flat else given

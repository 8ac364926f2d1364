"""Difficulty of tasks: known hard tasks come out hard, and habits of annotators are not taken for difficulty."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from editloop.statistics.difficulty import Rated, noise_factors, task_difficulty
from editloop.statistics.judgement_table import judgement_table
from tests.generated_campaign import Character, campaign, honest


def generated(overlap, seed, people=None, **settings):
    rng = np.random.default_rng(seed)
    people = people or {f"annotator-{k}": honest(rng) for k in range(5)}
    return campaign(people, tasks=200, overlap=overlap, seed=seed, **settings)


@pytest.mark.parametrize(("overlap", "least"), [(2, 0.6), (3, 0.72), (5, 0.8)])
def test_known_hard_tasks_come_out_hard(overlap, least):
    correlations = []
    for seed in range(4):
        made = generated(overlap, seed, hardness=0.5)
        found = task_difficulty(judgement_table(made.judgements))
        tasks = sorted(found)
        known = [made.hardness[task] for task in tasks]
        correlations.append(float(spearmanr(known, [found[task] for task in tasks]).statistic))
    assert min(correlations) > least, correlations


def test_a_sloppy_annotator_does_not_make_the_tasks_hard_that_they_rated():
    people = {name: Character(noise=0.3) for name in "abcd"} | {"sloppy": Character(random_from=0)}
    made = generated(2, 7, people)
    found = task_difficulty(judgement_table(made.judgements))
    by_sloppy = {one.task_id for one in made.judgements if one.annotator == "sloppy"}
    theirs, others = (np.median([found[task] for task in found if (task in by_sloppy) is who]) for who in (True, False))
    assert theirs / others < 1.2  # 1.36 where all annotators are taken for equally exact


def test_scatter_of_one_task_alone_is_that_tasks():
    """Two raters of 50 tasks with one item each; one task's ratings are three times as far apart as the others'."""
    rating = np.tile([2.0, 3.0], 50)
    rating[-2:] = [1.0, 4.0]
    rating[::4], rating[1::4] = rating[1::4].copy(), rating[::4].copy()
    item = np.repeat(np.arange(50), 2)
    factors = noise_factors(Rated(rating, item, np.tile([0, 1], 50), item))
    assert np.argmax(factors) == 49
    assert factors[:-1] == pytest.approx(factors[0], rel=0.05)
    assert np.exp(np.log(factors).mean()) == pytest.approx(1)


def test_without_a_second_rating_nothing_is_known():
    made = campaign({"alone": Character()}, tasks=5, overlap=1, gold=0, repeats=0)
    assert task_difficulty(judgement_table(made.judgements)) == {}
    assert task_difficulty(judgement_table([])) == {}

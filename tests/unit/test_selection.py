"""What is asked next: information told apart from noise, pages put together well, diversity, a fair random share."""

from itertools import combinations

import numpy as np
import pytest

from editloop.selection.ranking import best_page, k_center, pair_distance, pair_information, propose_pages

pytestmark = pytest.mark.floats

SURE = -30.0
"""log sigma of a member without doubt."""


def scores(*members):
    """(mu, log_sigma) of members, each a list of K scores on one axis."""
    mu = np.array(members, float)[..., None]
    return mu, np.full_like(mu, SURE)


def test_members_that_disagree_tell_more_than_members_that_agree_it_is_close():
    agreed_close, disagreed = scores([0, 0.1], [0, 0.1]), scores([-3, 3], [3, -3])
    assert pair_information(*agreed_close)[0, 1] == pytest.approx(0, abs=1e-12)
    assert pair_information(*disagreed)[0, 1] == pytest.approx(np.log(2), abs=0.03)


def test_a_single_members_sigma_is_information_as_by_many_draws():
    mu, log_sigma = np.array([[[0.3], [-0.2]]]), np.log(np.array([[[1.2], [0.7]]]))
    rng = np.random.default_rng(0)
    chance = 1 / (1 + np.exp(-(0.5 + np.hypot(1.2, 0.7) * rng.normal(size=2_000_000))))
    entropy = lambda p: -(p * np.log(p) + (1 - p) * np.log(1 - p))  # noqa: E731
    expected = entropy(chance.mean()) - entropy(chance).mean()
    table = pair_information(mu, log_sigma)
    assert table[0, 1] == pytest.approx(expected, rel=0.01)
    assert table[1, 0] == pytest.approx(table[0, 1])
    assert table[0, 0] == 0
    assert pair_information(mu, np.full_like(log_sigma, SURE)).max() == pytest.approx(0, abs=1e-12)


def test_axes_add_up():
    rng = np.random.default_rng(1)
    mu, log_sigma = rng.normal(size=(3, 4, 2)), rng.normal(size=(3, 4, 2))
    parts = [pair_information(mu[..., [axis]], log_sigma[..., [axis]]) for axis in range(2)]
    np.testing.assert_allclose(pair_information(mu, log_sigma), sum(parts))


def test_the_best_page_is_the_one_farthest_apart_of_all():
    rng = np.random.default_rng(2)
    mu = rng.normal(size=(3, 6, 2)) * [1, 100]
    table = pair_distance(mu, np.array([1, 100]))
    mean = mu.mean(axis=0) / [1, 100]
    assert table[1, 4] == pytest.approx(np.abs(mean[1] - mean[4]).sum())
    page = best_page(table, 3)
    every = {chosen: sum(table[a, b] for a, b in combinations(chosen, 2)) for chosen in combinations(range(6), 3)}
    assert every[page] == pytest.approx(max(every.values()))
    assert best_page(table[:2, :2], 4) == (0, 1)


def test_k_center_covers_clusters_and_what_was_asked_counts():
    rng = np.random.default_rng(3)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]])
    features = np.concatenate([centre + rng.normal(0, 0.1, (20, 2)) for centre in centres])
    taken = k_center(features, [], range(80), 4)
    assert {place // 20 for place in taken} == {0, 1, 2, 3}
    more = k_center(features, [0, 25], range(80), 2)
    assert {place // 20 for place in more} == {2, 3}


def pool(rng, tasks=60, places=5):
    found = [(rng.normal(0, rng.uniform(0.1, 2), (4, places, 2)), np.full((4, places, 2), SURE)) for _ in range(tasks)]
    return found, rng.normal(size=(tasks, 6))


def test_nothing_is_asked_twice_and_the_random_share_is_what_was_said():
    rng = np.random.default_rng(4)
    found, features = pool(rng)
    asked = [1, 5, 9]
    proposals = propose_pages(found, features, asked, pages=20, places=3, random_share=0.25, seed=0)
    tasks = [one.task for one in proposals]
    assert len(set(tasks)) == 20
    assert not set(tasks) & set(asked)
    assert sum(one.at_random for one in proposals) == 5
    assert all(len(one.candidates) == 3 for one in proposals)
    assert proposals == propose_pages(found, features, asked, pages=20, places=3, random_share=0.25, seed=0)
    told = [one.information for one in proposals if not one.at_random]
    rest = propose_pages(found, features, [*asked, *tasks], pages=60, places=3, random_share=0, seed=0)
    assert min(told) > max(one.information for one in rest if one.task not in tasks)


def test_random_choice_is_even_over_tasks_and_candidates():
    rng = np.random.default_rng(5)
    found, features = pool(rng, tasks=10, places=4)
    tasks, shown = np.zeros(10), np.zeros(4)
    for seed in range(600):
        for one in propose_pages(found, features, [], pages=2, places=2, random_share=1.0, seed=seed):
            tasks[one.task] += 1
            shown[list(one.candidates)] += 1
    assert tasks.min() > 80  # 120 expected, standard deviation 10
    assert shown.min() > 520  # 600 expected, standard deviation 17


def test_a_pool_smaller_than_what_is_wanted_is_asked_whole():
    found, features = pool(np.random.default_rng(6), tasks=5)
    proposals = propose_pages(found, features, [0], pages=50, places=4, random_share=0.1, seed=0)
    assert sorted(one.task for one in proposals) == [1, 2, 3, 4]

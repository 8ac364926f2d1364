import numpy as np
import pytest

from annotation.quality.annotator_effects import joint_effects, others_mean
from annotation.quality.annotator_quality import annotator_quality
from annotation.quality.position_bias import position_effect
from editloop.statistics.holm import holm
from editloop.statistics.judgement_table import judgement_table
from tests.generated_campaign import Character, campaign, honest


def judged(characters, **settings):
    made = campaign(characters, **settings)
    return annotator_quality(judgement_table(made.judgements), judgement_table(made.checks), made.pages, made.tasks)


def team(seed, size):
    rng = np.random.default_rng([seed, 9])
    return {f"honest-{k}": honest(rng) for k in range(size)}


FAULTY = {
    "spammer": (Character(random_from=0), {"random"}),
    "constant": (Character(constant_from=0), {"random", "flat"}),
    "sleepy": (Character(flat=0.5), {"flat"}),
    "random late": (Character(random_from=0.6), {"fading"}),
    "constant late": (Character(constant_from=0.6), {"fading", "drift", "flat"}),
    "tired": (Character(tired=1.0), {"fading"}),
    "mild": (Character(bias=(1.0, 0.0)), {"shift"}),
    "harsh": (Character(bias=(-1.0, -1.0)), {"shift"}),
    "drifting": (Character(drift=1.5), {"drift"}),
    "first place": (Character(first=1.0), {"position"}),
    "fan": (Character(favours=1.0), {"editor"}),
    "hasty": (Character(seconds=2.0), {"speed"}),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_planted_fault_is_found_and_nobody_else_is_blamed(fault):
    character, kinds = FAULTY[fault]
    found = judged(team(1, 4) | {"z": character}, tasks=250, overlap=3, seed=1)
    assert kinds & {flag.split(":")[0] for flag in found["z"]["flags"]}
    assert not {name: one["flags"] for name, one in found.items() if name != "z" and one["flags"]}


def test_several_faulty_annotators_do_not_hide_each_other():
    faulty = {"spammer": Character(random_from=0), "harsh": Character(bias=(-1, -1)), "drifting": Character(drift=1.5)}
    found = judged(team(2, 5) | faulty, tasks=400, seed=2)
    assert {name for name, one in found.items() if one["flags"]} == set(faulty)


def test_honest_annotators_are_not_accused():
    """12 campaigns of 3 to 8 people with biases up to 0.35 levels and noise up to 0.7."""
    for seed in range(12):
        rng = np.random.default_rng(seed)
        found = judged(team(seed, int(rng.integers(3, 9))), tasks=int(rng.integers(30, 150)), overlap=3, seed=seed)
        assert not {name: one["flags"] for name, one in found.items() if one["flags"]}


def test_figures_are_those_of_the_character():
    characters = {
        "a": Character(),
        "b": Character(bias=(0.5, -0.5)),
        "c": Character(noise=0.3),
        "d": Character(drift=0.8),
    }
    found = judged(characters, tasks=600, overlap=4, seed=3, gold=0.1, repeats=0.1)
    low, high = found["b"]["shift"]["if"]["ci95"]
    assert low - 0.1 < 0.5 < high + 0.1
    assert found["b"]["shift"]["vq"]["value"] == pytest.approx(-0.5, abs=0.15)
    assert found["d"]["drift"]["if"]["value"] == pytest.approx(0.8, abs=0.2)
    assert found["c"]["repeats"]["exact"] > found["a"]["repeats"]["exact"]
    assert found["c"]["weight"]["if"] > found["a"]["weight"]["if"]
    assert found["a"]["gold"]["ci95"][0] < found["a"]["gold"]["share"] <= 1
    assert 18 < found["a"]["speed"]["median_seconds"] < 22
    shifts = [part["shift"]["if"] for part in found["d"]["parts"]]
    assert shifts == sorted(shifts)


def test_gold_and_repeats_are_counted_by_hand():
    made = campaign({"a": Character(), "b": Character(noise=0.9)}, tasks=40, gold=0.2, repeats=0.3, overlap=2)
    found = annotator_quality(judgement_table(made.judgements), judgement_table(made.checks), made.pages, made.tasks)
    known = {(page.task_id, one): page.expected[one] for page in made.pages for one in page.expected}
    first = {(one.task_id, one.candidate_id, one.annotator): one for one in made.judgements}
    for name in "ab":
        right, exact, close = [], [], []
        for one in (check for check in made.checks if check.annotator == name):
            if one.kind == "gold":
                bounds = known[one.task_id, one.candidate_id]
                right += [
                    bounds["if"][0] <= one.instruction_following <= bounds["if"][1],
                    bounds["vq"][0] <= one.visual_quality <= bounds["vq"][1],
                ]
            else:
                before = first[one.task_id, one.candidate_id, name]
                apart = [
                    abs(before.instruction_following - one.instruction_following),
                    abs(before.visual_quality - one.visual_quality),
                ]
                exact += [gap == 0 for gap in apart]
                close += [gap <= 1 for gap in apart]
        assert found[name]["gold"]["share"] == pytest.approx(np.mean(right))
        assert found[name]["gold"]["answers"] == len(right)
        assert found[name]["repeats"]["exact"] == pytest.approx(np.mean(exact))
        assert found[name]["repeats"]["within_one"] == pytest.approx(np.mean(close))


def test_joint_effects_are_least_squares_with_every_item_as_a_column():
    rng = np.random.default_rng(4)
    item, annotator = (index.ravel() for index in np.indices((40, 3)))
    keep = rng.random(len(item)) < 0.8
    item, annotator = item[keep], annotator[keep]
    rating = rng.normal(size=40)[item] + np.array([0.0, 0.7, -0.3])[annotator] + rng.normal(0, 0.2, len(item))
    found = joint_effects(rating, item, annotator, np.ones((len(item), 1)), item, 3)
    design = np.concatenate([np.eye(40)[item], np.eye(3)[annotator]], axis=1)
    plain = np.linalg.lstsq(design, rating, rcond=None)[0][-3:]
    np.testing.assert_allclose(found.values[:, 0], plain - np.median(plain), atol=1e-8)
    assert (found.errors > 0.01).all()
    assert (found.errors < 0.1).all()


def test_one_persons_bias_is_not_the_others_opposite_bias():
    """Against the others' mean, two honest annotators would look half as harsh as the third is mild."""
    characters = {"a": Character(), "b": Character(), "z": Character(bias=(1.0, 1.0))}
    made = campaign(characters, tasks=300, overlap=3)
    table = judgement_table(made.judgements)
    apart = table["if"] - others_mean(table["if"].to_numpy(float), table["item"].to_numpy())
    assert apart[table["annotator"] == "a"].mean() < -0.25
    found = judged(characters, tasks=300, overlap=3)
    assert abs(found["a"]["shift"]["if"]["value"]) < 0.1


def test_the_position_test_is_the_permutation_test():
    """Its p-value against 4,000 shuffles within pages of two, three and four candidates, with and without an effect."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 5, 40)
    page, place = np.repeat(np.arange(40), sizes), np.concatenate([np.arange(size) for size in sizes])
    for effect in (0.0, 0.35):
        rating = rng.normal(size=len(page)) + effect * (place == 0)
        found = position_effect(rating, place, page)

        def distance(values):
            # The statistic is what chi-squared's p says; its shuffles need no distribution.
            return -position_effect(values, place, page).log_p

        shuffled = [distance(rating[np.lexsort((rng.random(len(page)), page))]) for _ in range(4000)]
        by_count = np.mean(np.array(shuffled) >= distance(rating) - 1e-9)
        assert np.exp(found.log_p) == pytest.approx(by_count, abs=0.03)


def test_holm_by_known_p_values():
    p = np.array([0.04, 0.0001, 0.012, 0.3, 0.013])
    assert holm(np.log(p), 0.05).tolist() == [False, True, True, False, True]
    assert holm(np.log([0.03, 0.04]), 0.05).tolist() == [False, False]


def test_two_annotators_cannot_be_told_apart_and_few_pages_say_nothing():
    two = judged({"a": Character(), "z": Character(bias=(1.2, 1.2))}, tasks=150, overlap=2)
    assert not any(flag.startswith(("shift", "random")) for one in two.values() for flag in one["flags"])
    few = judged({"a": Character(), "b": Character(), "z": Character(random_from=0)}, tasks=4, overlap=3)
    assert not any(one["flags"] for one in few.values())
    alone = judged({"a": Character()}, tasks=30, overlap=1)
    assert alone["a"]["shift"] == {"if": None, "vq": None}
    assert alone["a"]["weight"] == {"if": 1.0, "vq": 1.0}

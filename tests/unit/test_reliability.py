import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene

from editloop.data.vocabulary import AXES
from editloop.statistics.judgement_table import judgement_table
from editloop.statistics.reliability import BORROWED, information_share, reliability
from tests.generated_campaign import Character, campaign

pytestmark = pytest.mark.floats


@pytest.fixture(scope="module")
def judgements():
    characters = {
        "careful": Character(noise=0.3),
        "noisy": Character(noise=0.9),
        "mild": Character(bias=(0.4, 0.4), noise=0.3),
        "spammer": Character(random_from=0),
        "sleepy": Character(constant_from=0),
    }
    return campaign(characters, tasks=150).judgements


def test_posterior_and_weights_are_those_of_the_library(judgements):
    for axis in AXES:
        field = "instruction_following" if axis == "if" else "visual_quality"
        table = pd.DataFrame(
            [((one.task_id, one.candidate_id), one.annotator, getattr(one, field)) for one in judgements],
            columns=["task", "worker", "label"],
        )
        library = DawidSkene().fit(table)
        found = reliability(judgement_table(judgements), axis)
        assert found.posterior.keys() == set(table["task"])
        for item, levels in found.posterior.items():
            np.testing.assert_allclose(levels, library.probas_.loc[[item], [1, 2, 3, 4]].to_numpy()[0], atol=1e-6)
        # The library's confusion of each person, with their own share of true levels: the same information.
        everybody = table.join(library.probas_, on="task").groupby("label")[[1, 2, 3, 4]].sum().to_numpy()
        for name, rows in table.groupby("worker"):
            true = library.probas_.loc[list(rows["task"])].sum()[[1, 2, 3, 4]].to_numpy()
            errors = library.errors_.loc[name].reindex([1, 2, 3, 4], fill_value=0)[[1, 2, 3, 4]].to_numpy()
            counts = errors * true + BORROWED * everybody / everybody.sum()
            assert found.weights[name] == pytest.approx(information_share(counts), abs=0.01)


def test_who_tells_more_weighs_more(judgements):
    for axis in AXES:
        weights = reliability(judgement_table(judgements), axis).weights
        assert weights["careful"] > weights["noisy"] > 0.1
        assert weights["spammer"] < 0.05
        assert weights["sleepy"] < 0.05
        assert weights["mild"] > weights["noisy"]  # a constant shift hides less than noise


def test_told_is_information_over_entropy():
    assert information_share(np.eye(4)) == pytest.approx(1)
    assert information_share(np.eye(4)[::-1]) == pytest.approx(
        1
    )  # always the wrong level, always telling the right one
    assert information_share(np.ones((4, 4))) == pytest.approx(0)
    half = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert information_share(half) == pytest.approx(1)  # said three ways, but the true level is known from each
    joint = np.array([[4.0, 1.0], [1.0, 4.0]]) / 10
    mutual = np.log(2) + 0.8 * np.log(0.8) + 0.2 * np.log(0.2)
    assert information_share(joint) == pytest.approx(mutual / np.log(2))


def test_few_ratings_make_an_average_annotator(judgements):
    newcomer = [one.model_copy(update={"annotator": "new"}) for one in judgements if one.annotator == "spammer"][:2]
    weights = reliability(judgement_table(judgements + newcomer), "if").weights
    assert abs(weights["new"] - np.mean(list(weights.values()))) < 0.2


def test_what_cannot_be_told_apart_weighs_one(judgements):
    alone = reliability(judgement_table([one for one in judgements if one.annotator == "noisy"]), "if")
    assert alone.weights == {"noisy": 1.0}
    assert all(levels.max() > 0.999 for levels in alone.posterior.values())
    equal = reliability(judgement_table([one.model_copy(update={"visual_quality": 4}) for one in judgements]), "vq")
    assert set(equal.weights.values()) == {1.0}
    assert all(levels[3] > 0.999 for levels in equal.posterior.values())
    assert reliability(judgement_table([]), "if") == ({}, {})

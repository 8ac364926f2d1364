from itertools import combinations

import krippendorff
import numpy as np
import pytest

from editloop.data.vocabulary import Judgement
from editloop.statistics.agreement import RESAMPLES, _Ratings, agreement, order_agreement, table_agreement
from editloop.statistics.bootstrap import draw_counts
from editloop.statistics.judgement_table import judgement_table, time_parts


def said(task, candidate, annotator, level, day=1):
    return Judgement.model_validate(
        {
            "task_id": task,
            "candidate_id": candidate,
            "annotator": annotator,
            "if": level,
            "vq": 5 - level,
            "position": 0,
            "annotation_id": 1,
            "created_at": f"2026-01-{day:02d}T00:00:00Z",
        }
    )


def random_table(rng, level):
    """(raters, items), NaN where missing."""
    table = rng.integers(1, rng.integers(3, 9), size=(rng.integers(2, 6), rng.integers(3, 30))).astype(float)
    table[rng.random(table.shape) < 0.3] = np.nan
    table[:2, :2] = [[1, 2], [1, 2]]
    return table**1.7 - 40 if level == "interval" else table


@pytest.mark.parametrize("level", ["ordinal", "interval", "nominal"])
def test_alpha_is_the_librarys_on_any_table(level):
    rng = np.random.default_rng(0)
    for _ in range(25):
        table = random_table(rng, level)
        raters, items = np.nonzero(~np.isnan(table))
        found = table_agreement(table[raters, items], items, raters, level=level)
        assert found["alpha"] == pytest.approx(krippendorff.alpha(table, level_of_measurement=level), abs=1e-9)
        assert found["items"] == ((~np.isnan(table)).sum(axis=0) > 1).sum()
        assert found["raters"] == len(table)


def test_words_can_be_rated_at_nominal_level():
    words = np.array([["cat", "dog", "cat", "cow"], ["cat", "dog", "dog", "cow"]])
    found = table_agreement(words.ravel(), np.tile(np.arange(4), 2), np.repeat(["a", "b"], 4), level="nominal")
    assert found["alpha"] == pytest.approx(krippendorff.alpha(words, level_of_measurement="nominal"))


def test_the_interval_is_that_of_resampled_tasks_and_covers_the_truth():
    """Over campaigns drawn from one population, the 95 % intervals cover its alpha about 95 times in 100."""
    rng = np.random.default_rng(1)

    def campaign(tasks):
        quality = np.repeat(rng.uniform(1, 4, tasks), 4) + rng.normal(0, 0.3, 4 * tasks)
        ratings = np.clip(np.round(quality[:, None] + rng.normal(0, 0.6, (4 * tasks, 3))), 1, 4)
        items, raters = (index.ravel() for index in np.indices(ratings.shape))
        return table_agreement(ratings.ravel(), items, raters, groups=items // 4)

    true = campaign(20000)["alpha"]
    covered = [low <= true <= high for low, high in (campaign(60)["ci95"] for _ in range(60))]
    assert np.mean(covered) > 0.85
    many_alike = [said("t", f"c{i}", name, 1 + i % 4) for i in range(40) for name in "ab"]
    assert agreement(judgement_table(many_alike), "if")["ci95"] is None  # one task says nothing of how tasks differ


def test_an_interval_leaves_one_resample_of_forty_on_either_side():
    rng = np.random.default_rng(3)
    values, items, raters = rng.integers(1, 5, 120), np.arange(120) // 3, np.arange(120) % 3
    low, high = table_agreement(values, items, raters, seed=5)["ci95"]
    ratings = _Ratings.of(values, items, items, "ordinal")
    draws = np.concatenate([ratings.alphas(times) for times in draw_counts(40, RESAMPLES, 100, seed=5)])
    assert len(draws) == 1000
    assert [(draws < low).mean(), (draws > high).mean()] == pytest.approx([0.025, 0.025], abs=1.5e-3)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_a_resample_of_one_value_alone_divides_by_no_zero(level):
    with np.errstate(all="raise"):
        found = table_agreement([1, 1, 1, 2], [0, 0, 1, 1], ["x", "y", "x", "y"], level=level)
    assert np.isfinite(found["alpha"])


def test_same_answers_agree_and_random_ones_do_not():
    rng = np.random.default_rng(1)
    same = [said(f"t{i}", "c", name, 1 + i % 4) for i in range(40) for name in "ab"]
    random = [said(f"t{i}", "c", name, int(rng.integers(1, 5))) for i in range(400) for name in "ab"]
    assert agreement(judgement_table(same), "vq")["alpha"] == pytest.approx(1)
    assert abs(agreement(judgement_table(random), "if")["alpha"]) < 0.15


@pytest.mark.parametrize(
    ("judgements", "note"),
    [
        ([said(f"t{i}", "c", name, 3) for i in range(5) for name in "ab"], "every compared rating is 3"),
        ([said(f"t{i}", "c", "anna", 1 + i % 4) for i in range(5)], "one rater (anna)"),
        ([said(f"t{i}", "c", "ab"[i % 2], 1 + i % 4) for i in range(5)], "no item was rated by two raters"),
        ([], "no ratings"),
    ],
)
def test_an_undefined_alpha_is_missing_and_says_why(judgements, note):
    found = agreement(judgement_table(judgements), "if")
    assert found["alpha"] is None
    assert found["ci95"] is None
    assert note in found["note"]


def test_order_agreement_counts_every_two_annotators_on_every_two_candidates():
    rng = np.random.default_rng(2)
    ratings = {(f"t{t}", f"c{c}", name): int(rng.integers(1, 5)) for t in range(5) for c in range(4) for name in "abc"}
    wanted = {"same": 0, "opposite": 0, "one_tie": 0, "both_tie": 0}
    for t in range(5):
        for one, other in combinations(range(4), 2):
            orders = [np.sign(ratings[f"t{t}", f"c{one}", n] - ratings[f"t{t}", f"c{other}", n]) for n in "abc"]
            for x, y in combinations(orders, 2):
                ties = int(x == 0) + int(y == 0)
                wanted[["same" if x == y else "opposite", "one_tie", "both_tie"][ties]] += 1
    table = judgement_table([said(*key, level) for key, level in ratings.items()])
    found = order_agreement(table, "if")
    assert found == {"share": wanted["same"] / (wanted["same"] + wanted["opposite"])} | wanted
    assert order_agreement(table[:0], "if")["share"] is None


def test_parts_are_weeks_of_a_long_campaign_and_equal_shares_of_a_short_one():
    long = judgement_table([said(f"t{day}", "c", name, 1, day) for day in range(1, 29) for name in "ab"])
    weeks = time_parts(long)
    assert [part.begin.day for part in weeks] == [1, 5, 12, 19, 26]  # 2026 began on a Thursday
    late = [said("t1", "c", "a", 1, day=1), said("t1", "c", "b", 1, day=28)]
    split = time_parts(judgement_table(late + [said(f"t{day}", "c", "a", 1, day) for day in (2, 9, 16)]))
    assert [int(part.rows.sum()) for part in split] == [1, 1, 1, 2]  # the ratings of one candidate stay together
    short = judgement_table([said(f"t{i}", "c", name, 1, 1 + i // 20) for i in range(40) for name in "ab"])
    assert [int(part.rows.sum()) for part in time_parts(short)] == [20, 20, 20, 20]
    assert len(time_parts(judgement_table([said("t", "c", "a", 1)]))) == 1
    assert time_parts(judgement_table([])) == []

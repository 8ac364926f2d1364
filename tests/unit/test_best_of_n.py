"""Best-of-N: the expected best against all choices counted out, ties, missing scores, and the curve's shape."""

from itertools import combinations

import numpy as np
import pytest

from editloop.errors import EditLoopError
from editloop.evaluation.best_of_n.curve import best_of_curve, expected_best
from editloop.evaluation.best_of_n.report import best_of_curves, curves_table, write_best_of
from editloop.evaluation.best_of_n.sampling import SampledEdits


def counted_out(scores, values, count):
    """The same by looking at every choice; equal scores share."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    found = []
    for choice in combinations(range(len(scores)), count):
        best = known[list(choice)] == known[list(choice)].max()
        found.append(values[list(choice)][best].mean())
    return np.mean(found)


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_expected_best_is_the_mean_over_all_choices(count):
    rng = np.random.default_rng(0)
    scores, values = rng.normal(size=(5, 6)), rng.uniform(size=(5, 6))
    scores[1] = rng.integers(0, 3, 6)
    scores[2, :4], scores[3] = np.nan, np.nan
    expected = [counted_out(one, value, count) for one, value in zip(scores, values, strict=True)]
    assert expected_best(scores, values, count) == pytest.approx(expected)


def test_more_than_there_are_is_refused():
    with pytest.raises(EditLoopError, match="best of 5: there are 4 edits a task"):
        expected_best(np.zeros((2, 4)), np.zeros((2, 4)), 5)


def test_a_perfect_judge_rises_as_the_closed_form_and_a_blind_one_stays():
    rng = np.random.default_rng(1)
    right = (rng.uniform(size=(3000, 16)) < 0.5).astype(float)
    clusters = [str(task) for task in range(3000)]
    counts = [1, 2, 4]
    best = best_of_curve(right, right, counts, clusters)
    assert [point.value for point in best] == pytest.approx([1 - 0.5**n for n in counts], abs=0.01)
    for point, count in zip(best, counts, strict=True):
        assert point.ends[0] < 1 - 0.5**count < point.ends[1]
    blind = best_of_curve(rng.normal(size=right.shape), right, counts, clusters)
    assert [point.value for point in blind] == pytest.approx([0.5] * 3, abs=0.01)
    assert blind[2].ends[1] - blind[2].ends[0] > blind[0].ends[1] - blind[0].ends[0]


def test_the_page_tells_curves_and_missing_scores(tmp_path):
    rng = np.random.default_rng(2)
    right = (rng.uniform(size=(8, 4)) < 0.5).astype(float)
    scores = right + rng.normal(size=right.shape)
    scores[0, 0] = np.nan
    sampled = SampledEdits(right, {"oracle": right, "learnt": scores}, tuple("abcdefgh"))
    curves = best_of_curves(sampled, [1, 2, 4])
    write_best_of(sampled, curves, tmp_path, {"editor": "some"})
    page = (tmp_path / "page.html").read_text()
    assert "missing scores of learnt</dt><dd>1<" in page
    assert "<svg" in page
    told = curves_table(curves).splitlines()
    assert told[0] == "| best by | N = 1 | N = 2 | N = 4 |"
    assert told[2].startswith(f"| oracle | {100 * right.mean():.1f} %")

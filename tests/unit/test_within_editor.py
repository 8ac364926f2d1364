"""What RL will feel of a reward model: the order of one editor's own edits of a task."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from editloop.datasets.preference_groups import PreferenceGroup
from editloop.evaluation.oracle import Oracle
from editloop.evaluation.suites.answers import SuiteAnswers
from editloop.evaluation.suites.suite import Item, Suite
from editloop.evaluation.within_editor import (
    EditorSamples,
    WithinEditor,
    correlation_within_editors,
    editor_samples,
    measure_within_editors,
)

NAN = float("nan")


def group(count, target=True, editors=None, ratings=None, task="t"):
    """Candidates 0, 1, 2, ... go ever further from the source to the target, in the oracle's eyes."""
    source, wanted = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)
    edits = np.stack([np.full((8, 8, 3), 200 * step // (count - 1), np.uint8) for step in range(count)])
    return PreferenceGroup(
        task_id=task,
        task_type="recolour",
        instruction="x",
        candidates=tuple(map(str, range(count))),
        editors=tuple(editors or ("e",) * count),
        source=source,
        target=wanted if target else None,
        edits=edits,
        ratings=np.array(ratings if ratings is not None else [[1, 1]] * count, np.float32),
        weights=np.ones((count, count, 2), np.float32),
    )


def suite_of(*groups: PreferenceGroup, order=slice(None), source="s") -> Suite:
    items = [Item(each.task_id, source, "recolour", "x", each.candidates[order]) for each in groups]
    return Suite("heldout", "strict", "0" * 64, tuple(items))


def by_oracle(scores, each) -> WithinEditor:
    answers = SuiteAnswers({"name": "x", "version": "y"}, scores={each.task_id: np.array(scores)})
    return measure_within_editors(suite_of(each), [each], answers, "oracle", seed=0)


def samples(ratings, task="t", cluster=None) -> EditorSamples:
    return EditorSamples(task, cluster or task, "e", np.arange(len(ratings)), np.array(ratings, dtype=np.float64))


def test_the_oracles_order_is_a_correlation_of_one_and_the_reverse_of_minus_one():
    assert by_oracle([0.0, 1.0, 5.0], group(3)).correlation == pytest.approx(1)
    assert by_oracle([2.0, 1.0, 0.0], group(3)).correlation == pytest.approx(-1)


def test_the_figure_is_the_mean_of_scipys_rank_correlations():
    rng = np.random.default_rng(0)
    groups = [samples(rng.integers(2, 9, 5), task=f"t{n}") for n in range(12)]
    scores = {each.task: rng.normal(size=5) for each in groups}
    found = correlation_within_editors(groups, scores, seed=0)
    each = [spearmanr(scores[one.task], one.ratings).statistic for one in groups]
    assert found.correlation == pytest.approx(np.mean(each))
    assert found.groups == 12
    low, high = found.interval
    assert low < found.correlation < high
    narrow = correlation_within_editors(groups, scores, seed=0, level=0.5).interval
    assert low < narrow[0] < narrow[1] < high


def test_groups_of_one_source_are_resampled_together():
    rng = np.random.default_rng(1)
    groups = [samples(rng.permutation(4), task=f"t{n}", cluster=f"s{n // 5}") for n in range(20)]
    apart = [each._replace(cluster=each.task) for each in groups]
    scores = {f"t{n}": groups[n].ratings * (1 if n // 5 % 2 else -1) for n in range(20)}
    dependent, independent = (correlation_within_editors(each, scores, seed=0).interval for each in (groups, apart))
    assert dependent[1] - dependent[0] > 1.5 * (independent[1] - independent[0])
    assert correlation_within_editors(groups[:5], scores, seed=0).interval is None


def test_a_missing_score_is_left_out_and_a_group_without_three_is_counted():
    assert by_oracle([0.0, NAN, 2.0, 3.0], group(4)).correlation == pytest.approx(1)
    assert by_oracle([0.0, NAN, NAN, 3.0], group(4)) == (None, None, 0, 1)
    assert correlation_within_editors([samples([1, 2, 3])], {}, seed=0) == (None, None, 0, 1)


def test_each_editors_edits_are_a_group_of_their_own():
    mixed = group(8, editors=["own", "own", "own", "own", "other", "other", "other", "third"])
    found = by_oracle([0.0, 1.0, 2.0, 3.0, -4.0, -5.0, -6.0, 99.0], mixed)
    assert (found.correlation, found.groups) == (pytest.approx(0), 2)


def test_one_score_for_all_says_nothing_of_their_order():
    assert by_oracle([1.0, 1.0, 1.0], group(3)) == (0, None, 1, 0)


def test_without_an_oracle_or_scores_nothing_is_measured():
    assert by_oracle([0.0, 1.0, 2.0], group(3, target=False)) == (None, None, 0, 0)
    each = group(3)
    assert measure_within_editors(suite_of(each), [each], None, "oracle", seed=0) == (None, None, 0, 0)


def test_experts_rate_by_the_sum_of_both_axes():
    each = group(4, target=False, ratings=[[4, 1], [1, 2], [2, 4], [4, 4]])
    (found,) = editor_samples(suite_of(each), [each], "experts")
    assert found.ratings.tolist() == [5, 3, 6, 8]
    assert (found.task, found.cluster, found.editor) == ("t", "s", "e")


def test_edits_that_experts_rate_alike_have_no_order():
    assert editor_samples(suite_of(group(4)), [group(4)], "experts") == []
    apart = group(4, ratings=[[1, 1], [1, 1], [1, 1], [1, 1.5]])
    assert len(editor_samples(suite_of(apart), [apart], "experts")) == 1


def test_what_is_left_without_missing_scores_needs_an_order_too():
    scores = {"t": np.array([NAN, 1.0, 2.0, 3.0])}
    assert correlation_within_editors([samples([1, 2, 2, 2])], scores, seed=0) == (None, None, 0, 0)


@pytest.mark.parametrize(("apart", "groups"), [(0.04, 0), (0.06, 1)])
def test_edits_that_the_oracle_hardly_tells_apart_have_no_order(monkeypatch, apart, groups):
    scores = np.array([0.5, 0.5 + apart, 0.5])
    monkeypatch.setattr("editloop.evaluation.within_editor.oracle_of_group", lambda _: Oracle(scores, scores))
    assert len(editor_samples(suite_of(group(3)), [group(3)], "oracle")) == groups


def test_scores_are_read_in_the_suites_order_of_candidates():
    each = group(3, ratings=[[1, 1], [2, 2], [3, 3]])
    suite = suite_of(each, order=slice(None, None, -1))
    answers = SuiteAnswers({"name": "x", "version": "y"}, scores={"t": np.array([3.0, 2.0, 1.0])})
    assert measure_within_editors(suite, [each], answers, "experts", seed=0).correlation == pytest.approx(1)


def test_tasks_that_the_suite_lacks_are_left_out():
    assert editor_samples(suite_of(group(3)), [group(3, task="another")], "oracle") == []

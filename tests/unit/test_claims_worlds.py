"""The worlds of claims 5 and 7: candidates whose axes disagree, labels asked for where the first reward is unsure."""

import json
from pathlib import Path

import numpy as np
import pytest

from editloop.content import read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.studies.claims import rounds
from editloop.studies.claims.disagreement import KEPT, choose_disagreeing, most_disagreeing
from editloop.studies.claims.ordering import axes_disagree, count_ordered
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.settings import SMALLEST
from editloop.studies.claims.store import PieceContext
from editloop.studies.claims.worlds import FULL, draw_seed
from editloop.studies.comparison.world import draw_candidates, oracle_candidate_scores, rate_candidates


def test_clear_pairs_are_counted_once_and_ties_and_missing_scores_are_no_order() -> None:
    truth = np.array([0.9, 0.5, 0.45, 0.1])  # five clear pairs: 0.5 and 0.45 are too close
    assert count_ordered(np.array([4.0, 3.0, 2.0, 1.0]), truth) == (5, 5)
    assert count_ordered(np.array([1.0, 2.0, 3.0, 4.0]), truth) == (0, 5)
    assert count_ordered(np.array([4.0, 3.0, 1.0, 1.0]), truth) == (4, 5), "a tie counts as an order"
    assert count_ordered(np.array([np.nan, 3.0, 2.0, 1.0]), truth) == (2, 5), "a missing score counts as an order"


def test_only_the_chosen_pairs_are_counted() -> None:
    following, quality = np.array([0.9, 0.2, 0.9]), np.array([0.1, 0.6, 0.15])
    disagree = axes_disagree(following, quality)
    np.testing.assert_array_equal(disagree, [[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    truth = (following + quality) / 2  # 0.5, 0.4, 0.525
    assert count_ordered(np.array([0.0, 0.0, 1.0]), truth, disagree) == (1, 1)


def test_the_axes_of_a_pair_disagree_only_by_more_than_a_clear_gap_each() -> None:
    assert not axes_disagree(np.array([0.9, 0.2]), np.array([0.50, 0.55])).any()
    assert not axes_disagree(np.array([0.55, 0.5]), np.array([0.1, 0.9])).any()
    assert not axes_disagree(np.array([0.9, 0.2]), np.array([0.9, 0.2])).any()
    assert axes_disagree(np.array([0.9, 0.2]), np.array([0.2, 0.9])).sum() == 2


def test_the_candidates_that_trade_most_of_one_axis_for_the_other_are_chosen() -> None:
    scores = np.array([[0.5, 0.5], [1.0, 0.0], [0.6, 0.6], [0.0, 1.0], [0.9, 0.9]])
    assert most_disagreeing(scores, 2) == (1, 3)
    assert most_disagreeing(scores, 3) == (0, 1, 3)
    assert most_disagreeing(scores[:2], 4) == (0, 1)


def test_chosen_candidates_disagree_more_than_those_left_out(tmp_path: Path) -> None:
    drawn = draw_candidates(tmp_path, tasks=8, seed=draw_seed(0, 0))
    choose_disagreeing(drawn, tmp_path / "chosen")
    before, after = (
        [oracle_candidate_scores(folder, task) for task in read_tasks(folder)] for folder in (drawn, tmp_path / "chosen")
    )
    assert {len(scores) for scores in after} == {KEPT}

    def disagreeing(tasks: list[np.ndarray]) -> float:
        shares = [axes_disagree(*scores.T)[np.triu_indices(len(scores), 1)].mean() for scores in tasks]
        return float(np.mean(shares))

    assert disagreeing(after) > disagreeing(before)
    rate_candidates(tmp_path / "chosen", tmp_path / "rated", seed=0)
    assert read_manifest(tmp_path / "rated")["facts"]["groups"] == 8

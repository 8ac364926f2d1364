"""The worlds of claims 5 and 7: candidates whose axes disagree, labels asked for where the first reward is unsure."""

import json
from pathlib import Path

import numpy as np
import pytest

from editloop.content import read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.models.edit_reward.model import shipped_reward
from editloop.models.editors.opening import find_editor
from editloop.studies.claims import rounds
from editloop.studies.claims.disagreement import KEPT, choose_disagreeing, most_disagreeing
from editloop.studies.claims.ordering import axes_disagree, count_ordered
from editloop.studies.claims.reinforcement import BASE
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.settings import SMALLEST
from editloop.studies.claims.store import PieceContext
from editloop.studies.claims.worlds import draw_seed, rate_few
from editloop.studies.comparison.world import draw_candidates, oracle_candidate_scores, rate_candidates
from editloop.studies.world.scenes import write_edits


def test_clear_pairs_are_counted_once_and_ties_and_missing_scores_are_no_order() -> None:
    truth = np.array([0.9, 0.5, 0.45, 0.1])  # five clear pairs: 0.5 and 0.45 are too close
    assert count_ordered(np.array([4.0, 3.0, 2.0, 1.0]), truth) == (5, 5)
    assert count_ordered(np.array([1.0, 2.0, 3.0, 4.0]), truth) == (0, 5)
    assert count_ordered(np.array([4.0, 3.0, 1.0, 1.0]), truth) == (4, 5), "a tie counts as an order"
    assert count_ordered(np.array([np.nan, 3.0, 2.0, 1.0]), truth) == (2, 5), "a missing score counts as an order"


def test_only_the_chosen_pairs_are_counted() -> None:
    following, quality = np.array([0.9, 0.2, 0.9, 0.1]), np.array([0.1, 0.6, 0.15, 0.05])
    disagree = axes_disagree(following, quality)
    np.testing.assert_array_equal(disagree, [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    truth = (following + quality) / 2  # 0.5, 0.4, 0.525, 0.075: four clear pairs
    scores = np.array([0.0, 0.0, 1.0, 2.0])
    assert count_ordered(scores, truth) == (1, 4)
    assert count_ordered(scores, truth, disagree) == (1, 1)


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
        [oracle_candidate_scores(folder, task) for task in read_tasks(folder)]
        for folder in (drawn, tmp_path / "chosen")
    )
    assert {len(scores) for scores in after} == {KEPT}

    def disagreeing(tasks: list[np.ndarray]) -> float:
        shares = [axes_disagree(*scores.T)[np.triu_indices(len(scores), 1)].mean() for scores in tasks]
        return float(np.mean(shares))

    assert disagreeing(after) > disagreeing(before)
    rate_candidates(tmp_path / "chosen", tmp_path / "rated", seed=0)
    assert read_manifest(tmp_path / "rated")["facts"]["groups"] == 8


@pytest.fixture(scope="module")
def first_round(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A first round in which the shipped models stand in for the trained ones."""
    folder = tmp_path_factory.mktemp("first-round")
    reward, labels, editor = folder / "reward", folder / "reward" / rounds.LABELS, folder / "editor-piece" / "editor"
    labels.parent.mkdir()
    editor.mkdir(parents=True)
    (reward / MODEL).symlink_to(shipped_reward("tiny-reward") or "", target_is_directory=True)
    (editor / "editor").symlink_to(find_editor(BASE), target_is_directory=True)
    rate_few(draw_candidates(folder, tasks=14, seed=draw_seed(3, 0)), labels, seed=3, first=12)
    return {"world": folder, "round-1-reward": reward, "round-1": folder / "editor-piece"}


def test_both_second_rounds_ask_for_as_many_labels_and_only_the_active_one_shows_the_tuned_editor(
    first_round: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "_train_and_measure", lambda work, variant: {})
    labels, editors, proposals = {}, {}, {}
    for name, train in (("active", rounds.train_second_reward), ("passive", rounds.train_passive_reward)):
        work = PieceContext(tmp_path / name, 0, SMALLEST, first_round)
        work.folder.mkdir()
        train(work)
        labels[name] = read_manifest(work.folder / rounds.LABELS)["facts"]
        editors[name] = {
            candidate.editor for task in read_tasks(work.folder / "pages") for candidate in task.candidates
        }
        proposals[name] = json.loads((work.folder / "pages" / "proposal.json").read_text())
    tuned = str(first_round["round-1"] / "editor" / "editor")
    assert labels["active"]["groups"] == labels["passive"]["groups"] == SMALLEST.second_labels
    assert labels["active"]["pairs"] == labels["passive"]["pairs"] == 6 * SMALLEST.second_labels
    assert tuned in editors["active"]
    assert tuned not in editors["passive"]
    assert BASE in editors["passive"]
    assert sum(page["at_random"] for page in proposals["active"]) == 2, "pages are not chosen by information"
    assert all(page["at_random"] for page in proposals["passive"])


def test_a_reward_s_errors_are_counted_on_the_edits_of_both_editors(
    first_round: dict[str, Path], tmp_path: Path
) -> None:
    write_edits(first_round["world"] / "held-out", 6, draw_seed(0, 2))
    needs = first_round | {"round-2-reward": first_round["round-1-reward"]}
    figures = rounds.measure_round_errors(PieceContext(tmp_path, 0, SMALLEST, needs))
    assert sorted(figures) == ["first_on_base", "first_on_tuned", "second_on_base", "second_on_tuned"]
    assert 0 < figures["first_on_base"] < 1
    assert figures["first_on_base"] == figures["first_on_tuned"] == figures["second_on_tuned"], "the same models here"

"""The next campaign's tasks from a reward model: what is written, what is left out, and what the ensemble knows."""

import json
from datetime import UTC, datetime

import numpy as np
import pytest
import torch

from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.content import complete_folder, read_manifest, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import Judgement
from editloop.errors import EditLoopError
from editloop.selection.ensemble import EnsembleLabels, fit_ensemble
from editloop.selection.propose import run_propose
from editloop.studies.learning_curves.learning_curves import judgement_saving

pytestmark = pytest.mark.floats

TINY = "tiny-reward"


def labels(rng, tasks=40, candidates=4, width=16):
    """Tasks whose better candidate is the one further along a direction of the hidden states."""
    hidden = rng.normal(size=(tasks, candidates, 2, width))
    ratings = hidden @ np.linspace(-1, 1, width)
    ones = torch.ones(tasks, candidates, candidates, 1)
    as_tensor = [torch.from_numpy(one).float() for one in (hidden, ratings)]
    return EnsembleLabels(*as_tensor, torch.ones(tasks, candidates, dtype=torch.bool), ones)


def test_the_ensemble_learns_agrees_where_it_knows_and_is_the_same_for_the_same_seed():
    rng = np.random.default_rng(0)
    known, new = labels(rng), labels(rng, tasks=20)
    mu, again = (fit_ensemble(known, seed=1, members=3)(new.hidden).detach() for _ in range(2))
    assert torch.equal(mu, again)
    assert not torch.allclose(mu[0], mu[1])
    order, truth = (one[..., :, None, :] - one[..., None, :, :] for one in (mu, new.ratings))
    clear = truth > 1
    assert (order > 0)[:, clear].float().mean() > 0.95
    doubt = torch.sigmoid(order).var(dim=0)
    assert doubt[clear].mean() < doubt[(truth > 0) & (truth < 0.3)].mean() / 3


def test_proposed_tasks_are_a_candidates_folder_of_the_pool(make_candidates, tmp_path):
    pool = make_candidates(12, candidates=5)
    found = run_propose(
        pool, tmp_path / "next", model=TINY, strategy="active", pages=6, places=3, random_share=0.34, seed=0
    )
    manifest = read_manifest(tmp_path / "next", check=True)
    assert manifest["facts"]["pool_sha256"] == read_manifest(pool)["sha256"]
    before = {task.task_id: task for task in read_tasks(pool)}
    after = read_tasks(tmp_path / "next")
    assert len({task.task_id for task in after}) == 6
    for task in after:
        assert len(task.candidates) == 3
        assert set(task.candidates) < set(before[task.task_id].candidates)
        assert task.model_copy(update={"candidates": ()}) == before[task.task_id].model_copy(update={"candidates": ()})
        for digest in (task.source, task.target, *(one.image for one in task.candidates)):
            assert (tmp_path / "next" / "images" / f"{digest}.png").is_file()
    told = json.loads((tmp_path / "next" / "proposal.json").read_text())
    assert [one["at_random"] for one in told] == [one.at_random for one in found]
    assert sum(one["at_random"] for one in told) == 2


def test_what_the_dataset_has_is_not_asked_again(make_candidates, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    pool = make_candidates(14)
    judged = read_tasks(pool)[:10]
    with complete_folder(tmp_path / "judged") as folder:
        rows = [
            Judgement.model_validate(
                {
                    "task_id": task.task_id,
                    "candidate_id": one.candidate_id,
                    "annotator": who,
                    "if": 1 + place % 4,
                    "vq": 4 - place % 4,
                    "position": place,
                    "annotation_id": 1,
                    "created_at": datetime(2026, 1, 1, tzinfo=UTC),
                }
            )
            for task in judged
            for place, one in enumerate(task.candidates)
            for who in ("x", "y")
        ]
        (folder / "judgements.jsonl").write_text("".join(row.model_dump_json(by_alias=True) + "\n" for row in rows))
        write_json(folder / "summary.json", {})
    run_dataset(tmp_path / "judged", pool, tmp_path / "data", tmp_path / "version.json", DatasetParameters(seed=1))
    found = run_propose(
        pool, tmp_path / "next", model=TINY, dataset=tmp_path / "data", strategy="active", pages=50, seed=0
    )
    asked = {task.task_id for task in read_tasks(tmp_path / "next")}
    assert asked == {task.task_id for task in read_tasks(pool)} - {task.task_id for task in judged}
    assert len(found) == 4


@pytest.mark.parametrize(("option", "message"), [({"places": 8}, "2 to 7"), ({"random_share": 1.5}, "between 0 and 1")])
def test_faulty_options_are_told_before_anything_is_written(make_candidates, tmp_path, option, message):
    with pytest.raises(EditLoopError, match=message):
        run_propose(make_candidates(3), tmp_path / "next", model=TINY, **option)
    assert not (tmp_path / "next").exists()


def test_the_saving_of_a_curve_that_is_twice_as_fast_is_half():
    budgets = np.arange(1, 21) * 40.0
    random = np.tile(1 - np.exp(-budgets / 300), (4, 1))
    twice = np.tile(1 - np.exp(-2 * budgets / 300), (4, 1))
    assert judgement_saving(budgets, random, twice)["mean"] == pytest.approx(0.5, abs=0.02)
    assert judgement_saving(budgets, random, random)["mean"] == pytest.approx(0, abs=1e-9)
    assert judgement_saving(budgets, twice, random)["mean"] < -0.3
    rng = np.random.default_rng(0)
    low, high = judgement_saving(budgets, *(random + rng.normal(0, 0.02, random.shape) for _ in range(2)))["ci95"]
    assert low < 0 < high


def test_random_choice_asks_no_model(make_candidates, tmp_path):
    pool = make_candidates(8, candidates=5)
    found = run_propose(pool, tmp_path / "next", model="models:/nothing@there", pages=5, places=3, seed=4)
    assert len(read_tasks(tmp_path / "next")) == 5
    assert all(one.at_random and len(one.candidates) == 3 for one in found)
    facts = read_manifest(tmp_path / "next")["facts"]
    assert (facts["strategy"], "model" in facts) == ("random", False)

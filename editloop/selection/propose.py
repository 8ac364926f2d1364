"""Propose what experts are asked next: of a pool of candidates, the pages that would teach the reward model most."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.content import complete_folder, read_manifest, write_file, write_json
from editloop.data.vocabulary import EditTask
from editloop.datasets.preference_groups import PreferenceGroup, read_groups
from editloop.errors import EditLoopError
from editloop.lineage.registry import resolve_model
from editloop.models.backbones.placement import placement
from editloop.models.edit_reward.model import RewardModel
from editloop.selection.ensemble import EnsembleLabels, HeadEnsemble, fit_ensemble
from editloop.selection.pool import CandidatePool, backbone_states, comparable_tasks, read_pool
from editloop.selection.ranking import Proposal, propose_pages
from editloop.training.edit_reward.train import pad_groups

Strategy = Literal["active", "diverse", "random"]
STRATEGIES: tuple[Strategy, ...] = ("random", "active", "diverse")
SHORTLIST = {"random": 1.0, "active": 1.0, "diverse": 1.5}
"""How many times as many pages as wanted a strategy looks at, to take those that lie farthest apart."""
RANDOM_SHARE = 0.1
"""Of the pages, chosen without regard to the model: a fair sample to calibrate and to measure with."""


def run_propose(
    pool: Path,
    output: Path,
    *,
    model: str,
    dataset: Path | None = None,
    strategy: Strategy = "random",
    pages: int = 50,
    places: int = 4,
    random_share: float = RANDOM_SHARE,
    seed: int = 0,
) -> list[Proposal]:
    """Write the candidates folder of the next campaign: `pages` tasks of `pool`, up to `places` candidates each.

    Random choice asks no model. For the other strategies `model` is a reward model's folder, a shipped name or
    models:/edit-reward@champion. With the `dataset` of what was judged so far, an ensemble of heads is fitted to it on
    the model's backbone, and its disagreement tells what is not known yet; without it the model's own sigma must do.
    Tasks that the dataset has are not asked again. `proposal.json` says what was chosen and why. EditLoopError where
    the pool has nothing left to ask.
    """
    if not 2 <= places <= 7:
        raise EditLoopError(f"--places {places}: a page shows 2 to 7 candidates.")
    if not 0 <= random_share <= 1:
        raise EditLoopError(f"--random-share {random_share}: a share lies between 0 and 1.")
    tasks = comparable_tasks(pool)
    judged = judged_tasks(dataset) if dataset else set()
    judged_indices = [index for index, task in enumerate(tasks) if task.task_id in judged]
    if len(judged_indices) == len(tasks):
        raise EditLoopError(
            f"{pool}: nothing left to ask, all its {len(judged_indices)} tasks are judged or have one candidate."
        )
    scores: list[tuple[NDArray[np.floating], NDArray[np.floating]]]
    features: NDArray[np.floating]
    if strategy == "random":
        scores = [(np.zeros((1, len(task.candidates), 1)),) * 2 for task in tasks]
        features = np.zeros((len(tasks), 1))
    else:
        reward = load_reward(model)
        candidate_pool = read_pool(pool, tasks, reward)
        scores = (
            ensemble_scores(candidate_pool, dataset, reward, seed) if dataset else own_scores(candidate_pool, reward)
        )
        features = candidate_pool.features()
    proposals = propose_pages(
        scores,
        features,
        judged_indices,
        pages=pages,
        places=places,
        random_share=1.0 if strategy == "random" else random_share,
        shortlist=SHORTLIST[strategy],
        seed=seed,
    )
    facts = {"pool_sha256": read_manifest(pool)["sha256"], "strategy": strategy, "seed": seed}
    facts |= {} if strategy == "random" else {"model": model}
    facts |= {"dataset_sha256": read_manifest(dataset)["sha256"]} if dataset else {}
    with complete_folder(output, facts) as folder:
        (folder / "images").mkdir()
        chosen = [_with_proposed_candidates(tasks[proposal.task], proposal) for proposal in proposals]
        for digest in {picture for task in chosen for picture in _pictures(task)}:
            shutil.copyfile(pool / "images" / f"{digest}.png", folder / "images" / f"{digest}.png")
        write_file(folder / "tasks.jsonl", "".join(task.model_dump_json(by_alias=True) + "\n" for task in chosen))
        write_json(
            folder / "proposal.json",
            [
                {
                    "task": task.name,
                    "task_id": task.task_id,
                    "nats": None if strategy == "random" else proposal.information,
                    "at_random": proposal.at_random,
                }
                for task, proposal in zip(chosen, proposals, strict=True)
            ],
        )
    return proposals


def judged_tasks(dataset: Path) -> set[str]:
    """Ids of the tasks that a dataset folder holds judgements on; EditLoopError where it names none."""
    facts = read_manifest(dataset)["facts"]
    if "task_ids" not in facts:
        raise EditLoopError(
            f"--dataset {dataset}: its manifest names no judged tasks, so it is no dataset of judgements. Give the "
            "folder that stage dataset writes."
        )
    return set(facts["task_ids"])


def load_reward(model: str) -> RewardModel:
    """A reward model by folder, shipped name or registry address; on the first GPU, where there is one."""
    if not model.startswith("models:"):
        return RewardModel.load(model, *placement())
    folder = resolve_model(model)
    if folder is None:
        raise EditLoopError(f"{model}: the registry has no such version or alias; train-reward makes one.")
    return RewardModel.load(folder, *placement())


def own_scores(pool: CandidatePool, model: RewardModel) -> list[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """The model's own scores as an ensemble of one: (mu, log_sigma), (1, K, A) a task.

    A difference of mu is in the loss's own unit, the logit of one edit's being preferred.
    """
    by_task = []
    device = next(model.parameters()).device
    with torch.no_grad():
        for hidden in pool.hidden:
            scores = model.read(hidden.to(device))
            by_task.append((scores.mu[None].cpu().numpy(), scores.log_sigma[None].cpu().numpy()))
    return by_task


def ensemble_scores(
    pool: CandidatePool, dataset: Path, model: RewardModel, seed: int
) -> list[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """Scores of an ensemble that learnt from the dataset's training part: (mu, log_sigma), (M, K, A) a task."""
    groups = read_groups(dataset, "train", model.settings.side)
    if not groups:
        raise EditLoopError(f"{dataset}: its training part is empty, so there is nothing to learn from yet.")
    return scores_of(fit_ensemble(ensemble_labels(groups, backbone_states(groups, model)), seed), pool.hidden)


def scores_of(ensemble: HeadEnsemble, hidden: list[Tensor]) -> list[tuple[NDArray[np.floating], NDArray[np.floating]]]:
    """(mu, log_sigma), (M, K, A), of each task's hidden states by an ensemble's M members.

    Each member is sure of itself (sigma 0): doubt is where they differ.
    """
    with torch.no_grad():
        mu = [ensemble(states[None])[:, 0].numpy() for states in hidden]
    return [(task_mu, np.full_like(task_mu, -np.inf)) for task_mu in mu]


def ensemble_labels(groups: Sequence[PreferenceGroup], hidden: list[Tensor]) -> EnsembleLabels:
    """Judged groups and their hidden states, padded to one number of candidates."""
    ratings, valid, weights = pad_groups(groups)
    stacked = torch.zeros(*valid.shape, *hidden[0].shape[1:])
    for index, states in enumerate(hidden):
        stacked[index, : len(states)] = states
    return EnsembleLabels(stacked, ratings, valid, weights)


def _with_proposed_candidates(task: EditTask, proposal: Proposal) -> EditTask:
    return task.model_copy(update={"candidates": tuple(task.candidates[index] for index in proposal.candidates)})


def _pictures(task: EditTask) -> list[str]:
    return [task.source, *([task.target] if task.target else []), *(candidate.image for candidate in task.candidates)]

"""Propose what experts judge next: the pages of a pool of candidates from which the reward model learns most."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from editloop.content import complete_folder, read_manifest, write_file, write_json
from editloop.data.vocabulary import EditTask
from editloop.datasets.preference_groups import PreferenceGroup, read_groups
from editloop.datasets.splits import picture_digests
from editloop.errors import EditLoopError
from editloop.lineage.registry import require_model
from editloop.models.backbones.placement import placement
from editloop.models.edit_reward.model import RewardModel
from editloop.selection.ensemble import EnsembleLabels, HeadEnsemble, fit_ensemble
from editloop.selection.pool import CandidatePool, backbone_states, comparable_tasks, read_pool
from editloop.selection.ranking import Floats, Proposal, propose_pages
from editloop.training.edit_reward.train import pad_groups

Strategy = Literal["active", "diverse", "random"]
"""random: a random sample. active: the pages with the most information. diverse: of a longer list of such pages, those
that lie farthest apart."""
STRATEGIES: tuple[Strategy, ...] = ("random", "active", "diverse")
TaskScores = list[tuple[Floats, Floats]]
"""mu and log_sigma of each task."""
SHORTLIST = {"random": 1.0, "active": 1.0, "diverse": 1.5}
"""Pages that a strategy considers, as a multiple of the pages wanted; it takes those that lie farthest apart."""
RANDOM_SHARE = 0.1
"""Share of the pages chosen without regard to the model: an unbiased sample for calibration and measurement."""


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
    """Write the candidates folder of the next campaign.

    With strategy `random` no model is used. The others rank pages by information: with `dataset`, an ensemble of heads
    is fitted to its judgements on the model's backbone, and its disagreement measures what is unknown; without it, the
    model's own sigma does. The folder's `proposal.json` says what was chosen and why.

    Args:
        pool: The candidates folder to choose from.
        output: The candidates folder to write; an existing one is replaced.
        model: A reward model's folder, a shipped name, or an address such as models:/edit-reward@champion; not used
            with strategy `random`.
        dataset: Dataset folder of the judgements so far; its tasks are not proposed again. None if there is none.
        strategy: How to choose.
        pages: Number of pages, one task each; fewer if the pool has fewer.
        places: Largest number of candidates on a page, 2..7.
        random_share: Share of the pages drawn at random, 0..1.
        seed: Seed of the random choices and of the ensemble.

    Returns:
        The chosen pages.

    Raises:
        EditLoopError: A number is out of range, the pool has no task left to judge, or the model or the dataset cannot
            be read.
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
    scores: TaskScores
    features: Floats
    if strategy == "random":
        scores = [(np.zeros((1, len(task.candidates), 1)),) * 2 for task in tasks]
        features = np.zeros((len(tasks), 1))
    else:
        reward = load_reward(model)
        states = read_pool(pool, tasks, reward)
        scores = ensemble_scores(states, dataset, reward, seed) if dataset else own_scores(states, reward)
        features = states.features()
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
        for digest in {picture for task in chosen for picture in picture_digests(task)}:
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
    """Return the ids of the tasks that a dataset folder holds judgements on.

    Args:
        dataset: The dataset folder.

    Raises:
        EditLoopError: The folder's manifest names no judged tasks.
    """
    facts = read_manifest(dataset)["facts"]
    if "task_ids" not in facts:
        raise EditLoopError(
            f"--dataset {dataset}: its manifest names no judged tasks, so it is no dataset of judgements. Give the "
            "folder that stage dataset writes."
        )
    return set(facts["task_ids"])


def load_reward(model: str) -> RewardModel:
    """Load a reward model, onto the first GPU if there is one.

    Args:
        model: A folder, a shipped name, or an address in the registry.

    Raises:
        EditLoopError: There is no such model.
    """
    folder = require_model(model) if model.startswith("models:") else model
    return RewardModel.load(folder, *placement())


def own_scores(pool: CandidatePool, model: RewardModel) -> TaskScores:
    """Return the model's own scores as an ensemble of one member.

    A difference of mu is in the unit of the loss: the logit of the probability that one edit is preferred.

    Args:
        pool: The tasks with their states.
        model: The reward model.

    Returns:
        (mu, log_sigma) of each task, (1, K, A) each.
    """
    by_task = []
    device = next(model.parameters()).device
    with torch.no_grad():
        for hidden in pool.hidden:
            scores = model.read(hidden.to(device))
            by_task.append((scores.mu[None].cpu().numpy(), scores.log_sigma[None].cpu().numpy()))
    return by_task


def ensemble_scores(pool: CandidatePool, dataset: Path, model: RewardModel, seed: int) -> TaskScores:
    """Fit an ensemble to the dataset's training split and score the pool with it.

    Args:
        pool: The tasks with their states.
        dataset: The dataset folder.
        model: The reward model whose backbone computed the states.
        seed: Seed of the ensemble.

    Returns:
        (mu, log_sigma) of each task, (M, K, A) each.

    Raises:
        EditLoopError: The training split is empty.
    """
    groups = read_groups(dataset, "train", model.settings.side)
    if not groups:
        raise EditLoopError(f"{dataset}: its training part is empty, so there is nothing to learn from yet.")
    return scores_of(fit_ensemble(ensemble_labels(groups, backbone_states(groups, model)), seed), pool.hidden)


def scores_of(ensemble: HeadEnsemble, hidden: list[Tensor]) -> TaskScores:
    """Score tasks with an ensemble.

    Members have sigma 0 (log_sigma -inf); uncertainty is their disagreement.

    Args:
        ensemble: The ensemble of M members.
        hidden: The backbone's states of each task, (K, A, width).

    Returns:
        (mu, log_sigma) of each task, (M, K, A) each.
    """
    with torch.no_grad():
        mu = [ensemble(states[None])[:, 0].numpy() for states in hidden]
    return [(task_mu, np.full_like(task_mu, -np.inf)) for task_mu in mu]


def ensemble_labels(groups: Sequence[PreferenceGroup], hidden: list[Tensor]) -> EnsembleLabels:
    """Pad judged groups and their states to the same number of candidates.

    Args:
        groups: The judged groups.
        hidden: The backbone's states of each group, (K, A, width).
    """
    ratings, valid, weights = pad_groups(groups)
    stacked = torch.zeros(*valid.shape, *hidden[0].shape[1:])
    for index, states in enumerate(hidden):
        stacked[index, : len(states)] = states
    return EnsembleLabels(stacked, ratings, valid, weights)


def _with_proposed_candidates(task: EditTask, proposal: Proposal) -> EditTask:
    return task.model_copy(update={"candidates": tuple(task.candidates[index] for index in proposal.candidates)})

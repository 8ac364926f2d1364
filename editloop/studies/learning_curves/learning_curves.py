"""Measures whether active selection saves judgements: learning curves of active and random selection on drawn scenes.

    editloop campaign learning-curves --out runs/selection

All parts are those of the loop except for people and Label Studio: the pool's edits are made by the tiny editor and the
stand-ins, the experts are simulated, and `propose_pages` selects. The ensemble of heads on the tiny reward model's
backbone learns from these judgements alone. Each seed draws scenes, experts, first pages and weights anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from torch import Tensor

from editloop.content import sha256_json, write_json
from editloop.data.vocabulary import AXES
from editloop.models.edit_reward.model import RewardModel
from editloop.progress import track
from editloop.selection.ensemble import (
    HIDDEN,
    MEMBERS,
    PEAK_RATE,
    STEPS,
    TASKS_A_BATCH,
    WEIGHT_DECAY,
    EnsembleLabels,
    HeadEnsemble,
    fit_ensemble,
)
from editloop.selection.pool import CandidatePool, comparable_tasks, read_pool
from editloop.selection.propose import RANDOM_SHARE, SHORTLIST, STRATEGIES, Strategy, scores_of
from editloop.selection.ranking import propose_pages
from editloop.studies.comparison.world import (
    OVERLAP,
    PER_TASK,
    STAND_INS,
    draw_candidates,
    oracle_candidate_scores,
    simulate_judgements,
)

POOL, HELD_OUT = 600, 250
"""Number of tasks to select from, and of held-out tasks."""
PLACES = 4
"""Candidates on a page."""
FIRST, STEP, ROUNDS = 20, 20, 10
"""Pages of the first round, which are random; pages of each later round; number of rounds."""
CLEAR = 0.1
"""Held-out pairs count if their oracle scores (0..1) differ by more than this."""
RESAMPLES = 2000
"""Of the bootstrap over seeds."""


class World(NamedTuple):
    """A pool with the ratings that experts would give, and held-out tasks with the oracle's scores."""

    pool: CandidatePool
    ratings: list[NDArray[np.float32]]
    """For each task of the pool: (K, A), mean rating by the experts who are assigned to it."""
    held_out: list[Tensor]
    """For each held-out task: the backbone's states, (K, A, width)."""
    truth: list[NDArray[np.float64]]
    """For each held-out task: (K,), the oracle's mean score, 0..1."""


def learning_curves(output: Path, *, seeds: int = 5) -> dict[str, Any]:
    """Measure every strategy, and write `learning-curves.json`.

    Args:
        output: Folder of the results. Seeds that it has already, measured with the same settings, are not repeated.
        seeds: Number of seeds.

    Returns:
        The content of `learning-curves.json`: {"judgements": [number by round], "accuracy": {strategy: [[accuracy by
        round] for each seed]}, "saving": {strategy: {"mean", "ci95", "seeds"}}}. A judgement is one candidate rated by
        one expert.
    """
    by_strategy: dict[str, list[list[float]]] = {strategy: [] for strategy in STRATEGIES}
    for seed in range(seeds):
        seed_file = output / "seeds" / f"{seed}-{_settings_sha256()}.json"
        if not seed_file.is_file():
            world = draw_world(seed)
            write_json(seed_file, {strategy: learning_curve(world, strategy, seed) for strategy in STRATEGIES})
        for strategy, accuracies in json.loads(seed_file.read_text()).items():
            by_strategy[strategy].append(accuracies)
    judgements = [(FIRST + STEP * number) * PLACES * OVERLAP for number in range(ROUNDS)]
    budgets, curves = np.array(judgements, float), {strategy: np.array(rows) for strategy, rows in by_strategy.items()}
    result = {
        "judgements": judgements,
        "accuracy": by_strategy,
        "saving": {
            strategy: judgement_saving(budgets, curves["random"], curves[strategy])
            for strategy in STRATEGIES
            if strategy != "random"
        },
    }
    write_json(output / "learning-curves.json", result)
    return result


def draw_world(seed: int) -> World:
    """Draw the world of a seed: scenes, edits by the tiny editor and stand-ins, ratings by simulated experts.

    Args:
        seed: The seed.
    """
    model = RewardModel.load("tiny-reward")
    with tempfile.TemporaryDirectory(prefix="editloop-") as temporary:
        folders = {}
        for number, (name, count) in enumerate({"pool": POOL, "held-out": HELD_OUT}.items()):
            folders[name] = draw_candidates(Path(temporary) / name, tasks=count, seed=2 * seed + number)
        pool, held_out = (read_pool(folder, comparable_tasks(folder), model) for folder in folders.values())
        truth = [oracle_candidate_scores(folders["held-out"], task).mean(axis=1) for task in held_out.tasks]
        judgements_by_task = [simulate_judgements(folders["pool"], task, seed) for task in pool.tasks]
    ratings = [
        np.array([[judgement.instruction_following, judgement.visual_quality] for judgement in page], np.float32)
        .reshape(OVERLAP, -1, len(AXES))
        .mean(axis=0)
        for page in judgements_by_task
    ]
    return World(pool, ratings, held_out.hidden, truth)


def learning_curve(world: World, strategy: Strategy, seed: int) -> list[float]:
    """Simulate the rounds of one strategy.

    Args:
        world: The world.
        strategy: The strategy that selects pages from the second round on.
        seed: Seed of the selection and of the heads.

    Returns:
        Held-out accuracy after each round, 0..1, mean over the ensemble's members.
    """
    judged_pages: dict[int, tuple[int, ...]] = {}
    scores: list[tuple[NDArray[np.floating], NDArray[np.floating]]]
    scores = [(np.zeros((1, len(ratings), len(AXES))),) * 2 for ratings in world.ratings]
    features, accuracies = world.pool.features(), []
    for number in track(range(ROUNDS), description=f"seed {seed}, {strategy}"):
        pages = STEP if number else FIRST
        proposals = propose_pages(
            scores,
            features,
            list(judged_pages),
            pages=pages,
            places=PLACES,
            random_share=RANDOM_SHARE if number and strategy != "random" else 1.0,
            shortlist=SHORTLIST[strategy],
            seed=1000 * seed + number,
        )
        judged_pages |= {proposal.task: proposal.candidates for proposal in proposals}
        ensemble = fit_ensemble(_labels(world, judged_pages), seed=1000 * seed + number)
        accuracies.append(held_out_accuracy(ensemble, world))
        scores = scores_of(ensemble, world.pool.hidden)
    return accuracies


def held_out_accuracy(ensemble: HeadEnsemble, world: World) -> float:
    """Return the share of clear held-out pairs in the oracle's order, 0..1, mean over the ensemble's members.

    The axes count equally: scores on each are divided by their standard deviation, then averaged.

    Args:
        ensemble: The ensemble.
        world: The world with the held-out tasks.
    """
    with torch.no_grad():
        mu = [ensemble(states[None])[:, 0] for states in world.held_out]
    spread = torch.cat(mu, dim=1).std(dim=1, keepdim=True)
    right = wrong = 0
    for scores, truth in zip(mu, world.truth, strict=True):
        fused = (scores / spread).mean(dim=-1).numpy()
        clear = truth[:, None] - truth[None] > CLEAR
        agrees = (fused[:, :, None] > fused[:, None]) & clear
        right += int(agrees.sum())
        wrong += int(clear.sum()) * len(fused) - int(agrees.sum())
    return right / (right + wrong)


def judgement_saving(
    judgements: NDArray[np.float64], random: NDArray[np.float64], active: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the share of judgements that active selection saves for the accuracies that random selection reaches.

    Both mean curves are made monotone by isotonic regression. For each accuracy of random selection from its third
    round on, the saving is 1 - (judgements of the strategy) / (judgements of random selection). A strategy that does
    not reach the accuracy within the measured rounds counts as needing all of them.

    Args:
        judgements: Number of judgements after each round, (rounds,).
        random: Accuracy of random selection, (seeds, rounds).
        active: Accuracy of the strategy, (seeds, rounds).

    Returns:
        mean (of the savings), ci95 (percentile bootstrap over seeds, which keeps the two curves of a seed together) and
        seeds (their number).
    """

    def of(rows: NDArray[np.intp]) -> float:
        mine, theirs = (isotonic_regression(accuracies[rows].mean(axis=0)).x for accuracies in (active, random))
        needed = [(_needed(judgements, mine, target), _needed(judgements, theirs, target)) for target in theirs[2:]]
        return float(np.mean([1 - ours / plain for ours, plain in needed]))

    rng = np.random.default_rng(0)
    draws = [of(rng.integers(len(random), size=len(random))) for _ in range(RESAMPLES)]
    return {
        "mean": of(np.arange(len(random))),
        "ci95": [float(bound) for bound in np.percentile(draws, (2.5, 97.5))],
        "seeds": len(random),
    }


def _needed(judgements: NDArray[np.float64], curve: NDArray[np.float64], target: float) -> float:
    """Number of judgements at which a monotone curve reaches an accuracy, linear between rounds."""
    reached = int(np.argmax(curve >= target))
    if curve[reached] < target:
        return float(judgements[-1])
    if reached == 0:
        return float(judgements[0])
    before, after = curve[reached - 1], curve[reached]
    part = (target - before) / (after - before)
    return float(judgements[reached - 1] + part * (judgements[reached] - judgements[reached - 1]))


def _labels(world: World, judged_pages: dict[int, tuple[int, ...]]) -> EnsembleLabels:
    """Training labels of the ensemble from the pages judged so far, {task index: candidate indices}."""
    axes, width = world.pool.hidden[0].shape[1:]
    hidden, ratings = torch.zeros(len(judged_pages), PLACES, axes, width), torch.zeros(len(judged_pages), PLACES, axes)
    valid = torch.zeros(len(judged_pages), PLACES, dtype=torch.bool)
    for row, (task, places) in enumerate(judged_pages.items()):
        hidden[row, : len(places)] = world.pool.hidden[task][list(places)]
        ratings[row, : len(places)] = torch.from_numpy(world.ratings[task][list(places)])
        valid[row, : len(places)] = True
    return EnsembleLabels(hidden, ratings, valid, torch.ones(len(judged_pages), PLACES, PLACES, 1))


def _settings_sha256() -> str:
    """Hash of all settings, part of a seed's file name: results of other settings are not mixed in."""
    world = (POOL, HELD_OUT, STAND_INS, PER_TASK, PLACES, OVERLAP, FIRST, STEP, ROUNDS, CLEAR)
    learning = (RANDOM_SHARE, SHORTLIST, *HIDDEN, MEMBERS, STEPS, TASKS_A_BATCH, PEAK_RATE, WEIGHT_DECAY)
    return sha256_json([*world, *learning])[:12]

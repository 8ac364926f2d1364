"""Does active selection save judgements? Learning curves of active and random choice on drawn scenes.

    editloop campaign learning-curves --out runs/selection

Everything is the loop's own but the people and Label Studio: the pool's edits are the tiny editor's and the stand-ins',
the experts are simulated, the choice is `propose_pages`. What learns is the ensemble of heads on the tiny reward
model's backbone, from its own judgements alone. Each seed draws scenes, experts, first pages and weights anew.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from scipy.optimize import isotonic_regression
from torch import Tensor

from editloop.content import sha256_json, write_json
from editloop.data.vocabulary import AXES
from editloop.models.edit_reward.model import RewardModel
from editloop.models.editors.candidates import write_candidates
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
from editloop.studies.comparison.world import OVERLAP, PER_TASK, STAND_INS, oracle_candidate_scores, simulate_judgements
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates

POOL, HELD_OUT = 600, 250
"""Tasks."""
PLACES = 4
FIRST, STEP, ROUNDS = 20, 20, 10
"""Pages drawn at random to begin with, pages a round, rounds."""
CLEAR = 0.1
"""Held-out pairs whose oracle scores differ by more than this are counted."""
RESAMPLES = 2000


class World(NamedTuple):
    """A pool and what the experts would say of it, and the held-out tasks with the oracle's scores."""

    pool: CandidatePool
    ratings: list[NDArray[np.float32]]
    """A task: (K, A), mean of the experts who would be asked."""
    held_out: list[Tensor]
    truth: list[NDArray[np.float64]]
    """A held-out task: (K,), the oracle's mean."""


def learning_curves(output: Path, *, seeds: int = 5) -> dict[str, Any]:
    """Measure every strategy over `seeds` seeds; returns what `output`/learning-curves.json holds.

    {"judgements": [..], "accuracy": {strategy: [[a seed's accuracy by round]]}, "saving": {strategy: {"mean", "ci95",
    "seeds"}}}. A judgement is one candidate rated by one expert. Seeds that are there already are kept.
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
    """The world of a seed: scenes, edits by the tiny editor and stand-ins, simulated experts' ratings."""
    model = RewardModel.load("tiny-reward")
    with tempfile.TemporaryDirectory(prefix="editloop-") as temporary:
        folders = {}
        for number, (name, count) in enumerate({"pool": POOL, "held-out": HELD_OUT}.items()):
            folder, own_seed = Path(temporary) / name, 2 * seed + number
            write_edits(folder / "drawn", count, own_seed)
            add_candidates(folder / "drawn", folder / "edits", seed=own_seed, per_task=STAND_INS, facts={})
            write_candidates(folder / "edits", folder / "candidates", per_task=PER_TASK, seed=own_seed)
            folders[name] = folder / "candidates"
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
    """Held-out accuracy after each round of one strategy: mean over the ensemble's members, 0..1."""
    judged_pages: dict[int, tuple[int, ...]] = {}
    scores: list[tuple[NDArray[np.floating], NDArray[np.floating]]]
    scores = [(np.zeros((1, len(ratings), len(AXES))),) * 2 for ratings in world.ratings]
    features, accuracies = world.pool.features(), []
    for number in track(range(ROUNDS), description=f"seed {seed}, {strategy}", transient=True):
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
    """Share of clear held-out pairs in the oracle's order, mean over members. Axes count alike: each is brought to one
    spread first."""
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
    """How many judgements active choice saves on the way to what random choice reaches.

    random, active: (seeds, rounds). Both mean curves are made monotone (isotonic regression); for each accuracy that
    random choice has from its third round on, the saving is 1 - judgements needed by the strategy / judgements needed
    by random choice, and `mean` is their mean. Where the strategy never gets there within the measured rounds, it is
    counted as needing all of them. ci95: bootstrap over seeds, the two curves of a seed together.
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
    """Judgements at which a monotone curve reaches an accuracy, between rounds by a straight line."""
    reached = int(np.argmax(curve >= target))
    if curve[reached] < target:
        return float(judgements[-1])
    if reached == 0:
        return float(judgements[0])
    before, after = curve[reached - 1], curve[reached]
    part = (target - before) / (after - before)
    return float(judgements[reached - 1] + part * (judgements[reached] - judgements[reached - 1]))


def _labels(world: World, judged_pages: dict[int, tuple[int, ...]]) -> EnsembleLabels:
    """What was judged so far, as the heads learn from it."""
    axes, width = world.pool.hidden[0].shape[1:]
    hidden, ratings = torch.zeros(len(judged_pages), PLACES, axes, width), torch.zeros(len(judged_pages), PLACES, axes)
    valid = torch.zeros(len(judged_pages), PLACES, dtype=torch.bool)
    for row, (task, places) in enumerate(judged_pages.items()):
        hidden[row, : len(places)] = world.pool.hidden[task][list(places)]
        ratings[row, : len(places)] = torch.from_numpy(world.ratings[task][list(places)])
        valid[row, : len(places)] = True
    return EnsembleLabels(hidden, ratings, valid, torch.ones(len(judged_pages), PLACES, PLACES, 1))


def _settings_sha256() -> str:
    """Seeds measured under other settings are not mixed in."""
    settings = (
        POOL,
        HELD_OUT,
        STAND_INS,
        PER_TASK,
        PLACES,
        OVERLAP,
        FIRST,
        STEP,
        ROUNDS,
        CLEAR,
        RANDOM_SHARE,
        SHORTLIST,
    )
    return sha256_json([*settings, *HIDDEN, MEMBERS, STEPS, TASKS_A_BATCH, PEAK_RATE, WEIGHT_DECAY])[:12]

"""A world whose axes disagree, with few and partly random labels, and the judges of claim 5 that learn from it."""

import shutil
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.content import MANIFEST, complete_folder, write_file
from editloop.data.candidates_folder import read_tasks
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.splits import picture_digests
from editloop.evaluation.oracle import oracle_of_group
from editloop.models.editors.candidates import write_candidates
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.opening import open_judge
from editloop.studies.claims.ordering import axes_disagree, count_ordered
from editloop.studies.claims.reinforcement import BASE
from editloop.studies.claims.rewards import MODEL
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FEW, FULL, TASKS, count_pairs, draw_seed, rate_few
from editloop.studies.comparison.comparison import SHIPPED, Variant, measure_variant, train_variant
from editloop.studies.comparison.world import oracle_candidate_scores, rate_candidates
from editloop.studies.world.characters import Character
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import STAND_INS, add_candidates

KEPT = 4
"""Candidates of a task."""
UNRELIABLE: dict[str, Character] = {"bo": "spammer"}
"""One of the four experts rates at random."""
PUBLISHED_TARGET = (("target", "fused"),)
"""The published loss: the mean of the axes learns the overall order, and an overall tie whose axes disagree becomes two
samples. The demo's preset learns each axis's order by itself, which leaves less to be gained by heads of their own."""
HEAD_PER_AXIS = Variant("a head an axis, with uncertainty", *SHIPPED, PUBLISHED_TARGET)
ONE_HEAD = Variant("one shared head, with uncertainty", "editreward-tiny", "shared-head", PUBLISHED_TARGET)
POINTWISE = Variant("a head an axis, pointwise regression", *SHIPPED, (("loss", "regression"),))


def make_disagreeing_world(work: PieceContext) -> Figures:
    """Write the dataset folders `full` and `few`, in which following the instruction is often paid for in quality.

    Of each task's edits (one by each stand-in, one by the base editor) the experts see the KEPT whose axes disagree
    most by the oracle.

    Args:
        work: Inputs of the piece.

    Returns:
        pairs_full and pairs_few: number of preference pairs in each dataset.
    """
    candidates, chosen = work.folder / "candidates", work.folder / "chosen"
    if not (chosen / MANIFEST).is_file():
        seed = draw_seed(work.seed, TASKS)
        write_edits(work.folder / "drawn", work.settings.disagreeing_tasks, seed)
        add_candidates(work.folder / "drawn", work.folder / "edits", seed=seed, per_task=len(STAND_INS))
        write_candidates(
            work.folder / "edits", candidates, editor=BASE, per_task=1, steps=work.settings.steps, seed=seed
        )
        choose_disagreeing(candidates, chosen)
    rate_candidates(chosen, work.folder / FULL, seed=work.seed, characters=UNRELIABLE)
    rate_few(chosen, work.folder / FEW, seed=work.seed, first=work.settings.disagreeing_labels, characters=UNRELIABLE)
    return {f"pairs_{name}": count_pairs(work.folder / name) for name in (FULL, FEW)}


def choose_disagreeing(candidates: Path, output: Path) -> None:
    """Write a candidates folder with the KEPT candidates of each task whose axes disagree most by the oracle.

    Args:
        candidates: The candidates folder to choose from; all its tasks must have targets.
        output: The candidates folder to write.
    """
    with complete_folder(output, {"kept": KEPT}) as out:
        (out / "images").mkdir()
        tasks = []
        for task in read_tasks(candidates):
            places = most_disagreeing(oracle_candidate_scores(candidates, task), KEPT)
            tasks.append(task.model_copy(update={"candidates": tuple(task.candidates[place] for place in places)}))
        for digest in sorted({digest for task in tasks for digest in picture_digests(task)}):
            shutil.copyfile(candidates / "images" / f"{digest}.png", out / "images" / f"{digest}.png")
        write_file(out / "tasks.jsonl", "".join(task.model_dump_json(by_alias=True) + "\n" for task in tasks))


def most_disagreeing(scores: NDArray[np.float64], count: int) -> tuple[int, ...]:
    """Return the candidates with the largest sum of disagreements over their pairs, ascending.

    A pair disagrees by the smaller of what one edit is ahead on the one axis and behind on the other.

    Args:
        scores: The oracle's scores of the candidates, (K, 2).
        count: Number of candidates to choose; all, if there are fewer.
    """
    ahead = scores[:, None] - scores[None]
    disagreement = np.minimum(np.clip(ahead[..., 0], 0, None), np.clip(-ahead[..., 1], 0, None))
    choices: Sequence[tuple[int, ...]] = list(combinations(range(len(scores)), min(count, len(scores))))
    return max(choices, key=lambda places: float(disagreement[np.ix_(places, places)].sum()))


def train_on_disagreeing(work: PieceContext, variant: Variant) -> Figures:
    """Train a judge on the few labels of the disagreeing world.

    Args:
        work: Inputs of the piece.
        variant: The way to train it.

    Returns:
        The figures of `measure_variant` on the held-out tasks of `full`. accuracy_disagreeing: share of the clear
        pairs in order of which one edit follows better and the other looks better.
    """
    world, model = work.needs["disagreeing-world"], work.folder / MODEL
    train_variant(
        variant,
        world / FEW,
        model,
        bases=work.folder / "bases",
        seed=work.seed,
        epochs=work.settings.disagreeing_epochs,
    )
    figures = measure_variant(variant, world / FULL, model, seed=work.seed)
    return figures | {"accuracy_disagreeing": _accuracy_disagreeing(model, world / FULL)}


def _accuracy_disagreeing(model: Path, dataset: Path) -> float:
    groups, right, pairs = list(read_groups(dataset, "test")), 0, 0
    edits = [EditGroup(group.instruction, group.source, group.edits, group.key, group.references) for group in groups]
    for group, scores in zip(groups, open_judge(str(model)).judge(edits), strict=True):
        truth = oracle_of_group(group)
        if truth is None:
            continue
        fused = np.array([np.nan if score.fused is None else score.fused.mean for score in scores])
        disagree = axes_disagree(truth.instruction_following, truth.visual_quality)
        ordered, clear = count_ordered(fused, truth.mean, disagree)
        right, pairs = right + ordered, pairs + clear
    return right / pairs if pairs else float("nan")

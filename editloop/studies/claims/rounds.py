"""The rewards of claim 7's two rounds: one of few labels, one of labels on what the first cannot tell."""

from pathlib import Path

import numpy as np

from editloop.content import MANIFEST
from editloop.data.edits_file import read_edits
from editloop.evaluation.best_of_n.sampling import sample_edits
from editloop.evaluation.editors import ORACLE
from editloop.models.editors.opening import open_editor
from editloop.scoring.opening import open_judge
from editloop.selection.propose import run_propose
from editloop.studies.claims.ordering import count_ordered
from editloop.studies.claims.reinforcement import BASE, tuned_editor
from editloop.studies.claims.rewards import HEADS, MODEL
from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FULL, SECOND, count_pairs, draw_seed, rate_few
from editloop.studies.comparison.comparison import Variant, measure_variant, train_variant
from editloop.studies.comparison.world import draw_candidates, rate_candidates

ROUNDS = {"first": "round-1", "second": "round-2"}
"""The rounds' pieces, by the name of their reward in the figures."""
LABELS = "labels"
"""Name of the dataset folder in the folder of a piece that trains a round's reward."""
PLACES = 4
"""Candidates on a page of the second round."""
EDITS = 4
"""Edits of a task on which the rewards' errors are counted."""


def train_first_reward(work: PieceContext) -> Figures:
    """Train the first round's reward on the world's first tasks.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_variant` on the held-out tasks of `full`. labels: number of preference pairs.
    """
    drawn = work.needs["world"] / "candidates"
    rate_few(drawn, work.folder / LABELS, seed=work.seed, first=work.settings.first_labels)
    return _train_and_measure(work, HEADS)


def train_second_reward(work: PieceContext) -> Figures:
    """Train the first reward further on new labels of the tuned editor's edits, where the first reward is unsure.

    The pages are chosen by stage propose: an ensemble of heads on the first labels disagrees most about them.

    Args:
        work: Inputs of the piece.

    Returns:
        As of `train_first_reward`.
    """
    first = work.needs["round-1-reward"]
    editor = str(tuned_editor(work, "round-1"))
    return _train_further(work, editor, tasks=work.settings.second_pool, asked_by=(str(first / MODEL), first / LABELS))


def train_passive_reward(work: PieceContext) -> Figures:
    """Train the first reward further on as many new labels, of random pages with the base editor's edits.

    Args:
        work: Inputs of the piece.

    Returns:
        As of `train_first_reward`.
    """
    return _train_further(work, BASE, tasks=work.settings.second_labels)


def measure_round_errors(work: PieceContext) -> Figures:
    """Measure both rounds' rewards on edits by the base editor and by the editor that the first reward has tuned.

    Args:
        work: Inputs of the piece.

    Returns:
        JUDGE_on_EDITOR, as first_on_tuned: share of the clear pairs of a task's edits in the oracle's order, 0..1; NaN
        if no pair is clear.
    """
    judges = {name: open_judge(str(work.needs[f"{piece}-reward"] / MODEL)) for name, piece in ROUNDS.items()}
    rows = read_edits(work.needs["world"] / "held-out")[: work.settings.best_of_tasks]
    figures: Figures = {}
    for name, editor in (("base", BASE), ("tuned", str(tuned_editor(work, "round-1")))):
        sampled = sample_edits(open_editor(editor), rows, judges, edits_per_task=EDITS, steps=work.settings.steps)
        truth = sampled.scores[ORACLE]
        for judge in judges:
            counts = [count_ordered(*task) for task in zip(sampled.scores[judge], truth, strict=True)]
            ordered, clear = np.sum(counts, axis=0)
            figures[f"{judge}_on_{name}"] = float(ordered / clear) if clear else float("nan")
    return figures


def _train_further(work: PieceContext, editor: str, *, tasks: int, asked_by: tuple[str, Path] | None = None) -> Figures:
    """Label pages of new tasks, and train the first reward further on them.

    `asked_by` has the reward model and the labels by which the pages are chosen; None: they are random.
    """
    pool, pages = work.folder / "candidates", work.folder / "pages"
    if not (pages / MANIFEST).is_file():
        draw_candidates(work.folder, tasks=tasks, seed=draw_seed(work.seed, SECOND), editor=editor)
        model, labels = asked_by or ("", None)
        run_propose(
            pool,
            pages,
            model=model,
            dataset=labels,
            strategy="active" if asked_by else "random",
            pages=work.settings.second_labels,
            places=PLACES,
            seed=work.seed,
        )
    rate_candidates(pages, work.folder / LABELS, seed=work.seed)
    return _train_and_measure(work, HEADS._replace(base=str(work.needs["round-1-reward"] / MODEL)))


def _train_and_measure(work: PieceContext, variant: Variant) -> Figures:
    train_variant(
        variant,
        work.folder / LABELS,
        work.folder / MODEL,
        bases=work.folder / "bases",
        seed=work.seed,
        epochs=work.settings.reward_epochs,
    )
    figures = measure_variant(variant, work.needs["world"] / FULL, work.folder / MODEL, seed=work.seed)
    return figures | {"labels": count_pairs(work.folder / LABELS)}

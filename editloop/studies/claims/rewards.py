"""Trains judges of several qualities as the reward stage does, and measures them against the oracle."""

from pathlib import Path

from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FULL
from editloop.studies.comparison.comparison import SHIPPED, Variant, measure_variant, train_variant

HEADS = Variant("a head an axis, with uncertainty", *SHIPPED)
"""The reward model of the demo."""
SHARED = Variant("one shared head, with uncertainty", "editreward-tiny", "shared-head")
REGRESSION = Variant("a head an axis, pointwise regression", *SHIPPED, (("loss", "regression"),))
SCORE = Variant("EditScore", "editscore-tiny", "tiny-score", passes=1)
MODEL = "model"
"""Name of the model folder in the folder of the piece that trains it."""


def train_reward_on(work: PieceContext, dataset: str, variant: Variant = HEADS) -> Figures:
    """Train a judge on one of the world's datasets.

    Args:
        work: Inputs of the piece.
        dataset: Name of the dataset: `full`, `few` or `noisy`.
        variant: The way to train it.

    Returns:
        The figures of `measure_variant` on the held-out tasks of `full`.
    """
    _train(variant, work.needs["world"] / dataset, work, epochs=work.settings.reward_epochs)
    return measure_variant(variant, work.needs["world"] / FULL, work.folder / MODEL, seed=work.seed)


def second_reward(work: PieceContext) -> Figures:
    """Train the first round's reward model further on the second round's labels.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_variant` on the second round's held-out tasks; accuracy_before and within_group_before
        are those of the first round's model on the same tasks.
    """
    dataset, first = work.needs["second-world"] / FULL, work.needs["reward-full"] / MODEL
    variant = HEADS._replace(base=str(first))
    _train(variant, dataset, work, epochs=work.settings.reward_epochs)
    before = measure_variant(variant, dataset, first, seed=work.seed)
    after = measure_variant(variant, dataset, work.folder / MODEL, seed=work.seed)
    return after | {f"{name}_before": before[name] for name in ("accuracy", "within_group")}


def measure_edit_score(work: PieceContext) -> Figures:
    """Train EditScore, and measure it with one pass and with several.

    Args:
        work: Inputs of the piece.

    Returns:
        The figures of `measure_variant` with one pass, and those with `passes` passes, named FIGURE_avg.
    """
    dataset = work.needs["world"] / FULL
    _train(SCORE, dataset, work, epochs=work.settings.score_epochs)
    once, often = (
        measure_variant(SCORE._replace(passes=passes), dataset, work.folder / MODEL, seed=work.seed)
        for passes in (1, work.settings.passes)
    )
    return once | {f"{name}_avg": value for name, value in often.items()}


def _train(variant: Variant, dataset: Path, work: PieceContext, *, epochs: int) -> None:
    train_variant(variant, dataset, work.folder / MODEL, bases=work.folder / "bases", seed=work.seed, epochs=epochs)

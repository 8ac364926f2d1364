"""Trains judges of several qualities as the reward stage does, and measures them against the oracle."""

from pathlib import Path

from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FULL
from editloop.studies.comparison.comparison import SHIPPED, Variant, measure_variant, train_variant

HEADS = Variant("a head an axis, with uncertainty", *SHIPPED)
"""The reward model of the demo."""
SCORE = Variant("EditScore", "editscore-tiny", "tiny-score", passes=1)
MODEL = "model"
"""Name of the model folder in the folder of the piece that trains it."""


def train_reward_on(work: PieceContext, dataset: str) -> Figures:
    """Train a judge on one of the world's datasets.

    Args:
        work: Inputs of the piece.
        dataset: Name of the dataset: `full`, `few` or `noisy`.

    Returns:
        The figures of `measure_variant` on the held-out tasks of `full`.
    """
    _train(HEADS, work.needs["world"] / dataset, work, epochs=work.settings.reward_epochs)
    return measure_variant(HEADS, work.needs["world"] / FULL, work.folder / MODEL, seed=work.seed)


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

"""Judges of several qualities, trained by the reward stage and measured against the oracle on one held-out split."""

from collections.abc import Callable
from pathlib import Path

from editloop.studies.claims.store import Figures, PieceContext
from editloop.studies.claims.worlds import FULL
from editloop.studies.comparison.comparison import SHIPPED, Variant, measure_variant, train_variant

HEADS = Variant("a head an axis, with uncertainty", *SHIPPED)
"""The demo's."""
SHARED = Variant("one shared head, with uncertainty", "editreward-tiny", "shared-head")
REGRESSION = Variant("a head an axis, pointwise regression", *SHIPPED, (("loss", "regression"),))
SCORE = Variant("EditScore", "editscore-tiny", "tiny-score", passes=1)
MODEL = "model"
"""The model's folder, in the folder of the piece that trained it."""


def train_reward_on(dataset: str, variant: Variant = HEADS) -> Callable[[PieceContext], Figures]:
    """The piece that trains `variant` on one of the world's datasets, and measures it on the full one's held-out
    tasks."""

    def make(work: PieceContext) -> Figures:
        _train(variant, work.needs["world"] / dataset, work, epochs=work.settings.reward_epochs)
        return measure_variant(variant, work.needs["world"] / FULL, work.folder / MODEL, seed=work.seed)

    return make


def second_reward(work: PieceContext) -> Figures:
    """The first round's reward, learning on from the second round's labels; measured on the second's held-out tasks,
    as the first is there (`accuracy_before`, `within_group_before`)."""
    dataset, first = work.needs["second-world"] / FULL, work.needs["reward-full"] / MODEL
    variant = HEADS._replace(base=str(first))
    _train(variant, dataset, work, epochs=work.settings.reward_epochs)
    before = measure_variant(variant, dataset, first, seed=work.seed)
    after = measure_variant(variant, dataset, work.folder / MODEL, seed=work.seed)
    return after | {f"{name}_before": before[name] for name in ("accuracy", "within_group")}


def measure_edit_score(work: PieceContext) -> Figures:
    """EditScore asked once, and `passes` times (figures with `_avg`)."""
    dataset = work.needs["world"] / FULL
    _train(SCORE, dataset, work, epochs=work.settings.score_epochs)
    once, often = (
        measure_variant(SCORE._replace(passes=passes), dataset, work.folder / MODEL, seed=work.seed)
        for passes in (1, work.settings.passes)
    )
    return once | {f"{name}_avg": value for name, value in often.items()}


def _train(variant: Variant, dataset: Path, work: PieceContext, *, epochs: int) -> None:
    train_variant(variant, dataset, work.folder / MODEL, bases=work.folder / "bases", seed=work.seed, epochs=epochs)

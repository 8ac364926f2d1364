"""Settings of curation: which edits of a noisy set are kept to train on. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from editloop.settings_file import FrozenModel


class CurateSettings(FrozenModel):
    """Which of the scored edits to keep, at most one per task.

    `best` and `threshold` may be combined; without either, every task keeps its best edit.
    """

    order: Literal["best", "random"] = "best"
    """best: highest scores first. random: drawn by `seed` from the edits that have a score; the control that shows how
    much the scores are worth."""
    best: int = Field(0, ge=0)
    """Number of edits to keep; 0 keeps all that pass."""
    threshold: float | None = None
    """Lowest score to keep, on the scale of the judge's `overall`; null for no limit."""
    uncertainty: float = Field(0.0, ge=0)
    """Number of standard deviations to subtract from each score before the choice, so that edits of which the judge is
    unsure come last."""
    seed: int = 0
    """Seed of the random order."""

    @model_validator(mode="after")
    def _random_looks_at_nothing(self) -> Self:
        if self.order == "random" and (self.threshold is not None or self.uncertainty):
            raise ValueError(
                "order random does not weigh scores: leave out threshold and uncertainty, and give the number by `best`"
            )
        return self

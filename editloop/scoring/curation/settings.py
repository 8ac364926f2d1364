"""Which of a set of noisy edits are kept to learn from. Light: no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CurateSettings(BaseModel):
    """A choice among scored edits, at most one a task. Both limits may be given; without either every task keeps its
    best."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    order: Literal["best", "random"] = "best"
    """Highest scores first; or, of what has a score, drawn by `seed` alone: the control that shows what scores are
    worth."""
    best: int = Field(0, ge=0)
    """Keep so many edits; 0: as many as there are."""
    threshold: float | None = None
    """Keep what scores this or more, on the scale of the judge's `overall`."""
    uncertainty: float = Field(0.0, ge=0)
    """What counts is the score minus so many of its standard deviations: what the judge is unsure of goes last."""
    seed: int = 0
    """Of the random order."""

    @model_validator(mode="after")
    def _random_looks_at_nothing(self) -> Self:
        if self.order == "random" and (self.threshold is not None or self.uncertainty):
            raise ValueError(
                "order random does not weigh scores: leave out threshold and uncertainty, and give the number by `best`"
            )
        return self

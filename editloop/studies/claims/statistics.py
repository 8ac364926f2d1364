"""Figures of several seeds as means, paired changes and verdicts, with intervals by Student's t over seeds."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from editloop.studies.claims.store import Figures
from editloop.studies.comparison.comparison import student_interval

Seed = Mapping[str, Figures]
"""What the pieces of one seed measured, by name."""
Verdict = Literal["held", "not held", "undecided", "not measured"]
UNIT = {"points": (100.0, " points"), "": (1.0, "")}


class PieceFigure(NamedTuple):
    """A figure of a piece, as a claim shows it."""

    label: str
    piece: str
    name: str
    unit: Literal["points", ""] = "points"
    """points: a share, shown in hundredths."""

    def of(self, seed: Seed) -> float:
        """Its value for a seed, NaN where it was not measured."""
        return float(seed.get(self.piece, {}).get(self.name, np.nan))


class Contrast(NamedTuple):
    """A difference of two figures of one seed, which the claim says is above zero."""

    label: str
    plus: PieceFigure
    minus: PieceFigure | None
    """None: `plus` is a difference already."""
    decides: bool = True
    """Whether the verdict hangs on it; the others are shown beside."""

    def of(self, seed: Seed) -> float:
        """Its value for a seed, NaN where one of the figures was not measured."""
        return self.plus.of(seed) - (0.0 if self.minus is None else self.minus.of(seed))


class SeedEstimate(NamedTuple):
    """A figure or contrast over seeds."""

    label: str
    values: list[float]
    """A seed each; those that were not measured are left out."""
    mean: float | None
    ci95: tuple[float, float] | None
    """None for fewer than two seeds."""
    unit: Literal["points", ""]
    decides: bool


def estimate_over_seeds(figure: PieceFigure | Contrast, seeds: Sequence[Seed]) -> SeedEstimate:
    """Mean of a figure or contrast over seeds, with its 95 % interval."""
    values = np.array([figure.of(seed) for seed in seeds])
    values = values[np.isfinite(values)]
    unit, decides = (figure.unit, False) if isinstance(figure, PieceFigure) else (figure.plus.unit, figure.decides)
    if not len(values):
        return SeedEstimate(figure.label, [], None, None, unit, decides)
    mean, ends = student_interval(values)
    return SeedEstimate(figure.label, values.tolist(), mean, (ends[0], ends[1]) if ends else None, unit, decides)


def claim_verdict(contrasts: Sequence[SeedEstimate]) -> Verdict:
    """What the deciding contrasts say together: held, where the interval of each lies above zero; not held, where one
    lies below; undecided else. All must hold, so asking several makes no chance of a wrong `held` larger."""
    deciding = [contrast for contrast in contrasts if contrast.decides]
    if any(contrast.mean is None for contrast in deciding):
        return "not measured"
    ends = [contrast.ci95 for contrast in deciding]
    if any(end is not None and end[1] < 0 for end in ends):
        return "not held"
    return "held" if all(end is not None and end[0] > 0 for end in ends) else "undecided"


def format_estimate(estimate: SeedEstimate, signed: bool = False) -> str:
    """A figure with its interval in words: `+4.1 points (+1.2 to +7.0)`."""
    if estimate.mean is None:
        return "not measured"
    scale, suffix = UNIT[estimate.unit]
    digits = ("+" if signed else "") + (".1f" if estimate.unit else ".3f")
    text = f"{scale * estimate.mean:{digits}}{suffix if signed else (' %' if estimate.unit else '')}"
    if estimate.ci95 is None:
        return f"{text} (one seed)"
    return f"{text} ({scale * estimate.ci95[0]:{digits}} to {scale * estimate.ci95[1]:{digits}})"

"""Statistics over seeds: means, paired differences and verdicts, with intervals by Student's t."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from editloop.studies.claims.store import Figures
from editloop.studies.comparison.comparison import student_interval

Seed = Mapping[str, Figures]
"""Figures of one seed, by name of the piece."""
Verdict = Literal["held", "not held", "undecided", "not measured"]
UNIT = {"points": (100.0, " points"), "": (1.0, "")}


class PieceFigure(NamedTuple):
    """A figure of a piece, with its label in the report."""

    label: str
    piece: str
    name: str
    unit: Literal["points", ""] = "points"
    """points: a share, 0..1, shown times 100. Empty: shown as it is."""

    def of(self, seed: Seed) -> float:
        """Return the figure of a seed; NaN if it was not measured.

        Args:
            seed: Figures of the seed.
        """
        return float(seed.get(self.piece, {}).get(self.name, np.nan))


class Contrast(NamedTuple):
    """A difference between two figures of the same seed. If the claim holds, it is above zero."""

    label: str
    plus: PieceFigure
    minus: PieceFigure | None
    """The figure that is subtracted. None: `plus` is already a difference."""
    decides: bool = True
    """Whether the verdict depends on it. Other contrasts are only shown."""

    def of(self, seed: Seed) -> float:
        """Return the difference of a seed; NaN if one of the figures was not measured.

        Args:
            seed: Figures of the seed.
        """
        return self.plus.of(seed) - (0.0 if self.minus is None else self.minus.of(seed))


class SeedEstimate(NamedTuple):
    """Estimate of a figure or contrast over seeds."""

    label: str
    values: list[float]
    """Values of the seeds that were measured."""
    mean: float | None
    """None if no seed was measured."""
    ci95: tuple[float, float] | None
    """None for fewer than two seeds."""
    unit: Literal["points", ""]
    decides: bool
    """Whether it is a contrast on which the verdict depends."""


def estimate_over_seeds(figure: PieceFigure | Contrast, seeds: Sequence[Seed]) -> SeedEstimate:
    """Return the mean of a figure or contrast over seeds, with its 95 % interval.

    Args:
        figure: The figure or contrast.
        seeds: Figures of each seed.
    """
    values = np.array([figure.of(seed) for seed in seeds])
    values = values[np.isfinite(values)]
    unit, decides = (figure.unit, False) if isinstance(figure, PieceFigure) else (figure.plus.unit, figure.decides)
    if not len(values):
        return SeedEstimate(figure.label, [], None, None, unit, decides)
    mean, ends = student_interval(values)
    return SeedEstimate(figure.label, values.tolist(), mean, (ends[0], ends[1]) if ends else None, unit, decides)


def claim_verdict(contrasts: Sequence[SeedEstimate]) -> Verdict:
    """Return the verdict of a claim from its deciding contrasts.

    A claim is held if the interval of every deciding contrast lies above zero, not held if that of one lies below, and
    undecided otherwise. As all contrasts must hold, several of them do not make a false `held` more likely.

    Args:
        contrasts: Estimates of the claim's contrasts. Those that do not decide are ignored.
    """
    deciding = [contrast for contrast in contrasts if contrast.decides]
    if any(contrast.mean is None for contrast in deciding):
        return "not measured"
    ends = [contrast.ci95 for contrast in deciding]
    if any(end is not None and end[1] < 0 for end in ends):
        return "not held"
    return "held" if all(end is not None and end[0] > 0 for end in ends) else "undecided"


def format_estimate(estimate: SeedEstimate, signed: bool = False) -> str:
    """Return an estimate with its interval in words, as `+4.1 points (+1.2 to +7.0)`.

    Args:
        estimate: The estimate.
        signed: Whether it is a difference, shown with its sign and in points instead of percent.
    """
    if estimate.mean is None:
        return "not measured"
    scale, suffix = UNIT[estimate.unit]
    digits = ("+" if signed else "") + (".1f" if estimate.unit else ".3f")
    text = f"{scale * estimate.mean:{digits}}{suffix if signed else (' %' if estimate.unit else '')}"
    if estimate.ci95 is None:
        return f"{text} (one seed)"
    return f"{text} ({scale * estimate.ci95[0]:{digits}} to {scale * estimate.ci95[1]:{digits}})"

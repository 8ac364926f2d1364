"""Figures of several seeds as means, paired changes and verdicts, with intervals by Student's t over seeds."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from components.claims.store import Figures
from components.comparison.comparison import interval

Seed = Mapping[str, Figures]
"""What the pieces of one seed measured, by name."""
Verdict = Literal["held", "not held", "undecided", "not measured"]
UNIT = {"points": (100.0, " points"), "": (1.0, "")}


class Figure(NamedTuple):
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
    plus: Figure
    minus: Figure | None
    """None: `plus` is a difference already."""
    decides: bool = True
    """Whether the verdict hangs on it; the others are shown beside."""

    def of(self, seed: Seed) -> float:
        """Its value for a seed, NaN where one of the figures was not measured."""
        return self.plus.of(seed) - (0.0 if self.minus is None else self.minus.of(seed))


class Estimated(NamedTuple):
    """A figure or contrast over seeds."""

    label: str
    values: list[float]
    """A seed each; those that were not measured are left out."""
    mean: float | None
    ci95: tuple[float, float] | None
    """None for fewer than two seeds."""
    unit: Literal["points", ""]
    decides: bool


def estimated(one: Figure | Contrast, seeds: Sequence[Seed]) -> Estimated:
    """Mean of a figure or contrast over seeds, with its 95 % interval."""
    values = np.array([one.of(seed) for seed in seeds])
    values = values[np.isfinite(values)]
    unit, decides = (one.unit, False) if isinstance(one, Figure) else (one.plus.unit, one.decides)
    if not len(values):
        return Estimated(one.label, [], None, None, unit, decides)
    mean, ends = interval(values)
    return Estimated(one.label, values.tolist(), mean, (ends[0], ends[1]) if ends else None, unit, decides)


def verdict(contrasts: Sequence[Estimated]) -> Verdict:
    """What the deciding contrasts say together: held, where the interval of each lies above zero; not held, where one
    lies below; undecided else. All must hold, so asking several makes no chance of a wrong `held` larger."""
    deciding = [one for one in contrasts if one.decides]
    if any(one.mean is None for one in deciding):
        return "not measured"
    ends = [one.ci95 for one in deciding]
    if any(end is not None and end[1] < 0 for end in ends):
        return "not held"
    return "held" if all(end is not None and end[0] > 0 for end in ends) else "undecided"


def shown(one: Estimated, signed: bool = False) -> str:
    """A figure with its interval in words: `+4.1 points (+1.2 to +7.0)`."""
    if one.mean is None:
        return "not measured"
    scale, word = UNIT[one.unit]
    digits = ("+" if signed else "") + (".1f" if one.unit else ".3f")
    told = f"{scale * one.mean:{digits}}{word if signed else (' %' if one.unit else '')}"
    if one.ci95 is None:
        return f"{told} (one seed)"
    return f"{told} ({scale * one.ci95[0]:{digits}} to {scale * one.ci95[1]:{digits}})"

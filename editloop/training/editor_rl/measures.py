"""Measures of an evaluation's images besides scores: preservation outside the edit, and diversity within a group."""

from collections.abc import Sequence
from itertools import combinations
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from editloop.evaluation.oracle import edit_mask
from editloop.statistics.bootstrap import ratio_interval

RESAMPLES = 2_000
"""Bootstrap resamples for an interval that is shown at each evaluation. A gate uses more."""

Picture: TypeAlias = UInt8[NDArray[np.uint8], "height width 3"]
"""Image in RGB."""


def preservation(source: Picture, edit: Picture, answer: Picture) -> float:
    """1 minus the root mean square change outside the edit, 0..1; 1 where everything around the edit is unchanged.

    Args:
        source: The source at the editor's working size.
        edit: The edit, same size.
        answer: Image whose difference from the source shows where the edit belongs, same size: the target, or where
            there is none the base editor's edit.

    Returns:
        The preservation; NaN where no pixel is outside the edit.
    """
    outside = ~edit_mask(source, answer)
    if not outside.any():
        return float("nan")
    change = (edit.astype(np.float64) - source)[outside] / 255
    return 1 - float(np.sqrt(np.square(change).mean()))


def diversity(edits: Sequence[Picture]) -> float:
    """Mean distance between two edits of a group: root mean square, 0..1.

    Args:
        edits: At least two edits of one size.
    """
    pairs = list(combinations([edit.astype(np.float64) / 255 for edit in edits], 2))
    return float(np.mean([np.sqrt(np.square(first - second).mean()) for first, second in pairs]))


def mean_interval(values: Float[NDArray[np.float64], " tasks"]) -> tuple[float, float, float] | None:
    """Mean of the known values, with its 95 % bootstrap interval over tasks.

    Args:
        values: One value per task; NaN where unknown.

    Returns:
        Mean and the interval's low and high end; the ends are NaN with one known value. None where no value is known.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return None
    return ratio_interval(present, np.ones_like(present), resamples=RESAMPLES)

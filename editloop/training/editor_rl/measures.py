"""What an evaluation measures of pictures beside scores: what was left alone, how much a group varies."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from editloop.evaluation.oracle import edit_mask
from editloop.statistics.bootstrap import ratio_interval

RESAMPLES = 2_000
"""Of an interval that is shown at each evaluation; a gate takes more."""

Picture = NDArray[np.uint8]
"""(height, width, 3)."""


def preservation(source: Picture, edit: Picture, answer: Picture) -> float:
    """1 less the root mean square change (0..1) outside the edit: 1 where everything around it was left alone.

    All three are of one size, the editor's working size.

    answer: the picture that tells where the edit is, by its difference from the source: the right result, or where that
    is not known the base editor's edit. NaN where that leaves no pixel outside.
    """
    outside = ~edit_mask(source, answer)
    if not outside.any():
        return float("nan")
    change = (edit.astype(np.float64) - source)[outside] / 255
    return 1 - float(np.sqrt(np.square(change).mean()))


def diversity(edits: Sequence[Picture]) -> float:
    """Mean distance (root mean square, 0..1) of two of a group's edits, pictures of one size; at least two."""
    pairs = list(combinations([edit.astype(np.float64) / 255 for edit in edits], 2))
    return float(np.mean([np.sqrt(np.square(first - second).mean()) for first, second in pairs]))


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """Mean of the values (T,) that are known, with its 95 % bootstrap interval over tasks; None where none is known.

    With one known value the interval's ends are NaN.
    """
    present = values[np.isfinite(values)]
    if not len(present):
        return None
    return ratio_interval(present, np.ones_like(present), resamples=RESAMPLES)

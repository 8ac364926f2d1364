"""The choice of the edits to keep: pure functions on arrays."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.content import sha256_json
from editloop.scoring.curation.settings import CurateSettings

Values = NDArray[np.float64]


class EditNames(NamedTuple):
    """What N edits are, and of which tasks: 64 bytes an edit, because a set may have millions."""

    tasks: NDArray[np.uint8]
    """(N, 32): sha256 of the sources and the instruction. Edits that share both are of one task."""
    edits: NDArray[np.uint8]
    """(N, 32): sha256 of each edit's file."""

    def order_key(self, index: int, *prefix: int) -> int:
        """Return a number of 64 bits that depends on an edit's names alone.

        Args:
            index: Index of the edit.
            *prefix: Numbers that change all keys, such as a seed.
        """
        names = (self.tasks[index].tobytes().hex(), self.edits[index].tobytes().hex())
        return int(sha256_json([*prefix, *names])[:16], 16)


class Selection(NamedTuple):
    """Which of N scored edits are kept, and why the others are not."""

    kept: NDArray[np.int64]
    """Indices of the kept edits, in the order in which they were chosen; at most one edit per task."""
    counted: Values
    """(N,): the scores used for the choice, on the scale of `overall`; NaN where a score is missing."""
    dropped: dict[str, int]
    """Number of edits that were not kept, by reason."""


def lower_bound(overall: Values, mean: Values, sigma: Values, deviations: float) -> Values:
    """Return the scores minus `deviations` standard deviations, on the scale of `overall`.

    `sigma` is on the scale of `mean`. It is brought to the scale of `overall` by the least-squares slope of `overall`
    on `mean` over the set; for a judge whose overall score is the fused mean that slope is 1.

    Args:
        overall: Overall scores, (N,); NaN where missing.
        mean: Means of the judge's fused belief, (N,), on the judge's own scale.
        sigma: Standard deviations of that belief, (N,); NaN where the judge gives none.
        deviations: Number of standard deviations to subtract; 0 returns a copy of `overall`.

    Returns:
        The lower bounds, (N,). NaN where the score is missing, or, with `deviations` above 0, where sigma is.
    """
    if deviations == 0:
        return overall.copy()
    present = np.isfinite(overall) & np.isfinite(mean)
    spread = np.var(mean[present]) if present.any() else 0.0
    slope = float(np.cov(mean[present], overall[present], bias=True)[0, 1] / spread) if spread > 0 else 1.0
    return overall - deviations * abs(slope) * sigma


def select_edits(counted: Values, names: EditNames, settings: CurateSettings) -> Selection:
    """Choose which of N edits to keep.

    Of each task one edit is kept at most: the first in the order of choice. With order `best` the highest score comes
    first, and equal scores are ordered by a digest of their names, so that neither the order of the input nor an id has
    an influence. With order `random` a digest of the seed and the names gives the order.

    Args:
        counted: The scores used for the choice, (N,); an edit with NaN is never kept.
        names: The edits and their tasks.
        settings: Order, number, threshold and seed.

    Returns:
        The kept edits and the reasons why others were dropped.
    """
    is_random = settings.order == "random"
    prefix = (settings.seed,) if is_random else ()
    present = np.flatnonzero(np.isfinite(counted))
    keys = np.fromiter((names.order_key(index, *prefix) for index in present), np.uint64, len(present))
    ranked = present[np.lexsort((keys,) if is_random else (keys, -counted[present]))]
    dropped = {"no score": len(counted) - len(ranked)}
    firsts = ranked[np.sort(np.unique(_row_values(names.tasks[ranked]), return_index=True)[1])]
    dropped["another edit of its task"] = len(ranked) - len(firsts)
    selected = firsts if settings.threshold is None else firsts[counted[firsts] >= settings.threshold]
    dropped["below the threshold"] = len(firsts) - len(selected)
    kept = selected[: settings.best or None]
    dropped["beyond the number asked for"] = len(selected) - len(kept)
    return Selection(kept, counted, {key: n for key, n in dropped.items() if n})


def count_tasks(names: EditNames) -> int:
    """Return the number of tasks.

    Args:
        names: The edits and their tasks.
    """
    return len(np.unique(_row_values(names.tasks)))


def _row_values(rows: NDArray[np.uint8]) -> NDArray[np.void]:
    """Return rows of bytes as one value each, to sort and compare them."""
    return np.ascontiguousarray(rows).view(f"V{rows.shape[1]}")[:, 0]

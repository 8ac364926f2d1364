"""The choice of the edits to keep: pure functions on arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.content import sha256_json
from editloop.scoring.curation.settings import CurateSettings

Values = NDArray[np.float64]


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


def select_edits(counted: Values, names: Sequence[tuple[str, str]], settings: CurateSettings) -> Selection:
    """Choose which of N edits to keep.

    Of each task one edit is kept at most: the first in the order of choice. With order `best` the highest score comes
    first, and equal scores are ordered by a digest of their names, so that neither the order of the input nor an id has
    an influence. With order `random` a digest of the seed and the names gives the order.

    Args:
        counted: The scores used for the choice, (N,); an edit with NaN is never kept.
        names: (task, edit) of each edit, as digests of content.
        settings: Order, number, threshold and seed.

    Returns:
        The kept edits and the reasons why others were dropped.
    """
    ranked = [index for index in range(len(names)) if np.isfinite(counted[index])]
    if settings.order == "random":
        ranked.sort(key=lambda index: sha256_json([settings.seed, *names[index]]))
    else:
        ranked.sort(key=lambda index: (-counted[index], sha256_json(names[index])))
    dropped = {"no score": len(names) - len(ranked)}
    firsts: dict[str, int] = {}
    for index in ranked:
        firsts.setdefault(names[index][0], index)
    selected = list(firsts.values())
    dropped["another edit of its task"] = len(ranked) - len(selected)
    if settings.threshold is not None:
        selected = [index for index in selected if counted[index] >= settings.threshold]
        dropped["below the threshold"] = len(firsts) - len(selected)
    limit = min(settings.best or len(selected), len(selected))
    dropped["beyond the number asked for"] = len(selected) - limit
    return Selection(np.array(selected[:limit], dtype=np.int64), counted, {key: n for key, n in dropped.items() if n})

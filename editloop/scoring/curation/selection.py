"""The choice of the edits that are kept: pure functions on arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.content import sha256_json
from editloop.scoring.curation.settings import CurateSettings

Values = NDArray[np.float64]


class Selection(NamedTuple):
    """What becomes of N scored edits."""

    kept: NDArray[np.int64]
    """Places of the kept edits, in the order in which they were chosen; no task twice."""
    counted: Values
    """(N,): the score that counted, on the scale of `overall`; NaN where it is missing."""
    dropped: dict[str, int]
    """How many edits were not kept, by the reason."""


def lower_bound(overall: Values, mean: Values, sigma: Values, deviations: float) -> Values:
    """Scores (N,) minus `deviations` standard deviations, on the scale of `overall`; NaN stays NaN.

    mean, sigma (N,): the judge's belief in the fused score, on a scale of its own. Its standard deviations are brought
    to the scale of `overall` by the slope of `overall` on `mean` over the set (least squares); for a judge whose
    overall is the fused mean that slope is 1. A score without a sigma counts as missing where deviations are asked for.
    """
    if deviations == 0:
        return overall.copy()
    present = np.isfinite(overall) & np.isfinite(mean)
    spread = np.var(mean[present]) if present.any() else 0.0
    slope = float(np.cov(mean[present], overall[present], bias=True)[0, 1] / spread) if spread > 0 else 1.0
    return overall - deviations * abs(slope) * sigma


def select_edits(counted: Values, names: Sequence[tuple[str, str]], settings: CurateSettings) -> Selection:
    """Choose among N edits by the scores that count (NaN: missing, never kept) and their names (task, edit).

    Names are digests of content. Highest score first, equal ones by the digest of their names: no order of the input
    and no id shows through. Of a task one edit is kept, the first in the order.
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

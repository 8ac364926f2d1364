"""The choice of the edits that are kept: pure functions on arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from components.curate.settings import CurateSettings
from infra.content import sha256_json

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
    known = np.isfinite(overall) & np.isfinite(mean)
    spread = np.var(mean[known]) if known.any() else 0.0
    slope = float(np.cov(mean[known], overall[known], bias=True)[0, 1] / spread) if spread > 0 else 1.0
    return overall - deviations * abs(slope) * sigma


def select(counted: Values, names: Sequence[tuple[str, int]], settings: CurateSettings) -> Selection:
    """Choose among N edits by the scores that count (NaN: missing) and their names (task id, place in the task).

    Highest first, equal scores by the digest of their names, so that no order of the input shows through; a missing
    score is never kept by score, and may be kept by the random order, which does not look.
    """
    places = _order(counted, names, settings)
    dropped = {"no score": len(names) - len(places), "another edit of its task": 0, "below the threshold": 0}
    firsts: dict[str, int] = {}
    for place in places:
        firsts.setdefault(names[place][0], place)
    dropped["another edit of its task"] = len(places) - len(firsts)
    kept = list(firsts.values())
    if settings.threshold is not None:
        above = [place for place in kept if counted[place] >= settings.threshold]
        dropped["below the threshold"] = len(kept) - len(above)
        kept = above
    limit = settings.best or len(kept)
    dropped["beyond the number asked for"] = max(0, len(kept) - limit)
    return Selection(np.array(kept[:limit], dtype=np.int64), counted, {key: n for key, n in dropped.items() if n})


def _order(counted: Values, names: Sequence[tuple[str, int]], settings: CurateSettings) -> list[int]:
    """Places of the edits that may be kept, the first choice first."""
    if settings.order == "random":
        return sorted(range(len(names)), key=lambda place: sha256_json([settings.seed, *names[place]]))
    known = [place for place in range(len(names)) if np.isfinite(counted[place])]
    return sorted(known, key=lambda place: (-counted[place], sha256_json(names[place])))

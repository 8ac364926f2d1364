"""How far annotators agree: Krippendorff's alpha for ordered levels, with a bootstrap interval over tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation.vocabulary import HIGHEST_RATING, LOWEST_RATING, Axis, Judgement

RESAMPLES = 500
LEVELS = np.arange(LOWEST_RATING, HIGHEST_RATING + 1)


def agreement(judgements: Sequence[Judgement], axis: Axis, *, seed: int = 0) -> dict[str, Any]:
    """Agreement on one axis: {"alpha", "ci95": [low, high], "items", "raters"}.

    An item is a candidate with two ratings or more. `alpha` is None where nobody's ratings can be compared or all are
    one level (chance agreement is then undefined); it is never made up. The interval is the 2.5th to 97.5th percentile
    of alpha over RESAMPLES draws of whole tasks, as candidates of one task are not independent.
    """
    field = "instruction_following" if axis == "if" else "visual_quality"
    tasks, counts = _counts(judgements, field)
    rng = np.random.default_rng(seed)
    groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    draws = []
    for _ in range(RESAMPLES if groups else 0):
        chosen = np.concatenate([groups[group] for group in rng.integers(len(groups), size=len(groups))])
        if (drawn := alpha(counts[chosen])) is not None:
            draws.append(drawn)
    return {
        "alpha": alpha(counts),
        "ci95": [float(bound) for bound in np.percentile(draws, (2.5, 97.5))] if draws else None,
        "items": len(counts),
        "raters": len({judgement.annotator for judgement in judgements}),
    }


def alpha(counts: NDArray[np.int64]) -> float | None:
    """Krippendorff's ordinal alpha (1 = agree, 0 = by chance) of `counts` (items, levels); None where undefined."""
    import krippendorff

    if len(counts) == 0 or (counts.sum(axis=0) > 0).sum() < 2:
        return None
    return float(krippendorff.alpha(value_counts=counts, value_domain=LEVELS, level_of_measurement="ordinal"))


def _counts(judgements: Sequence[Judgement], field: str) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Task of each item (items,), and how often each level was given to it (items, levels)."""
    found: dict[tuple[str, str], NDArray[np.int64]] = {}
    for judgement in judgements:
        item = (judgement.task_id, judgement.candidate_id)
        levels = found.setdefault(item, np.zeros(len(LEVELS), dtype=np.int64))
        levels[getattr(judgement, field) - LOWEST_RATING] += 1
    compared = {item: levels for item, levels in sorted(found.items()) if levels.sum() > 1}
    tasks = np.array([task for task, _ in compared], dtype=np.str_)
    return tasks, np.array(list(compared.values()), dtype=np.int64).reshape(-1, len(LEVELS))

"""What online RL will feel of a reward model: whether it orders one editor's own edits of a task as the oracle does."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from components.suites.answers import Answers

LEAST_EDITS = 3
LEAST_SPREAD = 0.02
"""Of the oracle's scores, 0..1; edits that are as good as each other have no order."""


def within_group(answers: Answers | None, groups: Sequence[Any]) -> float | None:
    """Mean over groups of the correlation of score and oracle among one editor's own candidates, -1..1.

    Only the editor with most candidates is looked at; groups where either does not vary say nothing. None without an
    oracle, or without answers.
    """
    if answers is None or answers.scores is None:
        return None
    names = [name for group in groups for name in group.editors]
    own = max(sorted(set(names)), key=names.count) if names else ""
    found = []
    for group in groups:
        seen, values = group.oracle(), answers.scores.get(group.task_id)
        if seen is None or values is None:
            continue
        mine = np.array([name == own for name in group.editors]) & ~np.isnan(values)
        truth = seen.mean
        if mine.sum() < LEAST_EDITS or values[mine].std() < 1e-9 or truth[mine].std() < LEAST_SPREAD:
            continue
        found.append(np.corrcoef(values[mine], truth[mine])[0, 1])
    return float(np.mean(found)) if found else None

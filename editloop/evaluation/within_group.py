"""Agreement of a reward model with the oracle within one editor's edits of a task.

Online RL compares one editor's edits of a task with each other, so this agreement is what it depends on.
"""

from collections.abc import Sequence

import numpy as np

from editloop.datasets.preference_groups import PreferenceGroup
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.answers import SuiteAnswers

LEAST_EDITS = 3
"""Smallest number of scored edits of a group."""
LEAST_SPREAD = 0.02
"""Smallest standard deviation of the oracle's scores (0..1); edits of equal quality have no order."""


def within_group_correlation(answers: SuiteAnswers | None, groups: Sequence[PreferenceGroup]) -> float | None:
    """Return the mean over groups of the Pearson correlation between score and oracle, -1..1.

    Only edits of the editor with the most candidates count. Groups with too few such edits, or where the scores or the
    oracle's scores do not vary, are left out.

    Args:
        answers: The reward model's scores by task id; None if there are none.
        groups: The groups of judged candidates.

    Returns:
        The mean correlation; None without scores, or if every group is left out (as those without a right result are).
    """
    if answers is None or answers.scores is None:
        return None
    names = [name for group in groups for name in group.editors]
    main_editor = max(sorted(set(names)), key=names.count) if names else ""
    correlations = []
    for group in groups:
        oracle, values = oracle_of_group(group), answers.scores.get(group.task_id)
        if oracle is None or values is None:
            continue
        of_editor = np.array([name == main_editor for name in group.editors]) & ~np.isnan(values)
        truth = oracle.mean
        if of_editor.sum() < LEAST_EDITS or values[of_editor].std() < 1e-9 or truth[of_editor].std() < LEAST_SPREAD:
            continue
        correlations.append(np.corrcoef(values[of_editor], truth[of_editor])[0, 1])
    return float(np.mean(correlations)) if correlations else None

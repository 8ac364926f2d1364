"""What online RL will feel of a reward model: whether it orders one editor's own edits of a task as the oracle does."""

from collections.abc import Sequence

import numpy as np

from editloop.datasets.preference_groups import PreferenceGroup
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.answers import SuiteAnswers

LEAST_EDITS = 3
LEAST_SPREAD = 0.02
"""Of the oracle's scores, 0..1; edits that are as good as each other have no order."""


def within_group_correlation(answers: SuiteAnswers | None, groups: Sequence[PreferenceGroup]) -> float | None:
    """Mean over groups of the correlation of score and oracle among one editor's own candidates, -1..1.

    Only the editor with most candidates is looked at; groups where either does not vary say nothing. None without an
    oracle, or without answers.
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

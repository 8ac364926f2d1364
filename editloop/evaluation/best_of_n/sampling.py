"""Make several edits of each held-out task, and score them with the oracle and with judges."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from editloop.data.edits_file import EditRow
from editloop.errors import EditLoopError
from editloop.evaluation.best_of_n.curve import Values
from editloop.evaluation.clusters import clusters_of_rows
from editloop.evaluation.editors import ORACLE, HeldOut, judge_scores, oracle_view
from editloop.models.editors.protocol import Editor
from editloop.models.judge_protocol import Judge
from editloop.progress import track

BATCH = 64
"""Tasks edited at once."""


class SampledEdits(NamedTuple):
    """Scores of M edits of each of T tasks."""

    right: Values
    """(T, M): 1 where the oracle counts the edit as right, else 0."""
    scores: dict[str, Values]
    """Scores of each judge, (T, M), NaN where missing; `oracle`, its mean of the axes, is among them."""
    clusters: tuple[str, ...]
    """Cluster of each task: equal for tasks that share an image."""


def sample_edits(
    editor: Editor, rows: Sequence[EditRow], judges: Mapping[str, Judge], *, edits_per_task: int, steps: int
) -> SampledEdits:
    """Make `edits_per_task` edits of each task, each from noise of its own, and score them.

    Args:
        editor: The editor.
        rows: T held-out tasks, each with a target.
        judges: The judges by name.
        edits_per_task: Number of edits per task, M.
        steps: Number of sampling steps.

    Returns:
        The scores of all edits.

    Raises:
        EditLoopError: A task has no right result to compare with, or the editor cannot take its instruction; raised
            before anything is edited.
        JudgeUnavailableError: A judge cannot be reached.
    """
    without_target = [row.id for row in rows if row.target is None]
    if without_target:
        raise EditLoopError(
            f"{len(without_target)} tasks have no target, {without_target[0]!r} first: what the best of N is worth "
            "is told by the right result. Give each row a `target`."
        )
    tasks = HeldOut(rows, editor, steps=steps, guidance=None, batch=BATCH)
    right = np.full((len(rows), edits_per_task), np.nan)
    scores = {name: np.full_like(right, np.nan) for name in (ORACLE, *judges)}
    for number in track(range(edits_per_task), description="edits"):
        edits = tasks.edits(editor, number)
        oracle_scores = oracle_view(tasks.cases, edits)
        right[:, number], scores[ORACLE][:, number] = oracle_scores.right, oracle_scores.mean
        for name, judge in judges.items():
            scores[name][:, number] = judge_scores(judge, tasks.cases, edits)
    return SampledEdits(right, scores, clusters_of_rows(rows))

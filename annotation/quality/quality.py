"""Quality statistics of a campaign: agreement, annotators, position bias, conflicts."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotation.quality.annotator_quality import annotator_quality
from annotation.quality.conflicts import conflicts
from annotation.quality.page_cards import Answered, ReviewPages, review_pages
from annotation.quality.position_bias import position_effect
from editloop.data.vocabulary import AXES, Axis, CannotJudge, EditTask, Judgement, Page
from editloop.statistics.agreement import agreement, order_agreement
from editloop.statistics.difficulty import task_difficulty
from editloop.statistics.judgement_table import judgement_table, time_parts

HARDEST = 10
"""Tasks that the page shows as the hardest."""
HARD = 1.1
"""Least difficulty of a task that is called hard."""


def quality(
    judgements: Sequence[Judgement],
    checks: Sequence[Judgement],
    cannot: Sequence[CannotJudge],
    pages: Sequence[Page],
    tasks: Sequence[EditTask],
) -> dict[str, Any]:
    """Compute all quality statistics of a campaign.

    Args:
        judgements: Judgements on pages of kind `task`.
        checks: Judgements on pages of the other kinds: repeats, gold and norming.
        cannot: Answers that a page cannot be judged.
        pages: The campaign's pages, which hold the known answers.
        tasks: Tasks of the candidates folder, which hold task types and editors; may be empty.

    Returns:
        A dict that can be written as JSON. A figure that is not defined is None.

        - axes: by axis, the figures of `agreement`, `order_agreement`, `by_type` (agreement by task type) and
          `over_time` (agreement of each part of the campaign, with `begin` and `end`)
        - position: by axis, the effect of the position on the page over all annotators: {means, p, pages}
        - annotators: by name, the figures of `annotator_quality`
        - conflicts: number of tasks in conflict
        - hardest: up to HARDEST tasks of difficulty HARD or more, hardest first: {task_id, factor} (`task_difficulty`)
        - cannot: {answers, tasks, by_reason, by_annotator}
        - counts: {judgements, checks, tasks, candidates}
    """
    table, checked = judgement_table(judgements), judgement_table(checks)
    return {
        "axes": {axis: _axis(table, tasks, axis) for axis in AXES},
        "position": {axis: _position(pd.concat([table, checked], ignore_index=True), axis) for axis in AXES},
        "annotators": annotator_quality(table, checked, pages, tasks),
        "conflicts": len(conflicts(judgements)),
        "hardest": _hardest(table),
        "cannot": {
            "answers": len(cannot),
            "tasks": len({refusal.task_id for refusal in cannot}),
            "by_reason": dict(Counter(refusal.reason for refusal in cannot).most_common()),
            "by_annotator": dict(Counter(refusal.annotator for refusal in cannot).most_common()),
        },
        "counts": {
            "judgements": len(table),
            "checks": len(checked),
            "tasks": int(table["task_id"].nunique()),
            "candidates": int(table["item"].nunique()),
        },
    }


def reviewed_quality(
    answered: Answered, tasks: Sequence[EditTask], folders: Sequence[Path]
) -> tuple[dict[str, Any], ReviewPages]:
    """Return the quality statistics of a campaign, and the pages that its lead looks at.

    Args:
        answered: The answers.
        tasks: Tasks of the candidates folder; may be empty.
        folders: Folders of pictures, `<sha256>.png`.

    Returns:
        What `quality` returns, and what `review_pages` returns.
    """
    figures = quality(answered.judgements, answered.checks, answered.cannot, answered.pages, tasks)
    return figures, review_pages(answered, tasks, folders, [task["task_id"] for task in figures["hardest"]])


def _hardest(table: pd.DataFrame) -> list[dict[str, str | float]]:
    difficulty = sorted(task_difficulty(table).items(), key=lambda task: (-task[1], task[0]))
    return [{"task_id": task, "factor": factor} for task, factor in difficulty[:HARDEST] if factor >= HARD]


def _axis(table: pd.DataFrame, tasks: Sequence[EditTask], axis: Axis) -> dict[str, Any]:
    types = table["task_id"].astype(str).map({task.task_id: task.task_type for task in tasks})
    by_type = {str(name): agreement(table.loc[rows.index], axis) for name, rows in types.groupby(types)}
    over_time = [
        {"begin": part.begin.isoformat(), "end": part.end.isoformat()} | agreement(table[part.rows], axis)
        for part in time_parts(table)
    ]
    together = agreement(table, axis)
    return together | {"order_agreement": order_agreement(table, axis), "by_type": by_type, "over_time": over_time}


def _position(table: pd.DataFrame, axis: Axis) -> dict[str, Any]:
    """Return the effect of the position, on ratings averaged over annotators who saw the same page in the same order.

    Answers to one page share its order of candidates. Only pages, not answers, are ordered independently.
    """
    rows = table.assign(order=_order(table)).groupby(["kind", "task_id", "order", "position"], observed=True)[axis]
    means = rows.mean().reset_index()
    page = means.groupby(["kind", "task_id", "order"], observed=True).ngroup().to_numpy()
    effect = position_effect(means[axis].to_numpy(float), means["position"].to_numpy(int), page)
    return {"means": effect.means, "p": float(np.exp(effect.log_p)), "pages": effect.pages}


def _order(table: pd.DataFrame) -> NDArray[np.int64]:
    """Return a number for each row, (N,), that is equal for equal orders of candidates.

    An order is identified by the sum of random numbers, one for each (candidate, position). Two different orders have
    the same sum with a probability of about 2^-60.
    """
    placements, kinds = pd.factorize(table["candidate_id"].astype(str) + "@" + table["position"].astype(str))
    drawn = np.random.default_rng(0).integers(2**60, size=len(kinds))
    answer = table.groupby(["annotator", "annotation_id"], observed=True).ngroup().to_numpy()
    sums = np.zeros(answer.max(initial=0) + 1, dtype=np.int64)
    np.add.at(sums, answer, drawn[placements])
    order: NDArray[np.int64] = sums[answer]
    return order

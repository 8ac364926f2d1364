"""Is a campaign good enough to learn from? Every statistic of its ratings and its annotators, put together."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotation.quality.annotator_quality import annotator_quality
from annotation.quality.conflicts import conflicts
from annotation.quality.position_bias import position_effect
from editloop.data.vocabulary import AXES, Axis, CannotJudge, EditTask, Judgement, Page
from editloop.statistics.agreement import judged_agreement, order_agreement
from editloop.statistics.judgement_table import judgement_table, time_parts


def quality(
    judgements: Sequence[Judgement],
    checks: Sequence[Judgement],
    cannot: Sequence[CannotJudge],
    pages: Sequence[Page],
    tasks: Sequence[EditTask],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """All statistics, ready for JSON; a figure that cannot be had is None.

    `judgements` are those of kind `task`, `checks` those on repeats and gold; `pages` know the right answers; `tasks`
    (of the candidates folder) know types and editors, and may be empty. Gives

    - axes: {axis: agreement as `judged_agreement`, order_agreement, by_type {type: agreement}, over_time [agreement
      with begin, end]}
    - position: {axis: {means, p}}: of all annotators together, by place from the first
    - annotators: {name: as `annotator_quality`}
    - conflicts: tasks that somebody should decide; cannot: {answers, tasks, by_reason, by_annotator}
    - counts: {judgements, checks, tasks, candidates}
    """
    table, checked = judgement_table(judgements), judgement_table(checks)
    return {
        "axes": {axis: _axis(table, tasks, axis, seed) for axis in AXES},
        "position": {axis: _position(pd.concat([table, checked], ignore_index=True), axis) for axis in AXES},
        "annotators": annotator_quality(table, checked, pages, tasks),
        "conflicts": len(conflicts(judgements)),
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


def _axis(table: pd.DataFrame, tasks: Sequence[EditTask], axis: Axis, seed: int) -> dict[str, Any]:
    types = table["task_id"].astype(str).map({task.task_id: task.task_type for task in tasks})
    by_type = {
        str(name): judged_agreement(table.loc[rows.index], axis, seed=seed) for name, rows in types.groupby(types)
    }
    over_time = [
        {"begin": part.begin.isoformat(), "end": part.end.isoformat()}
        | judged_agreement(table[part.rows], axis, seed=seed)
        for part in time_parts(table)
    ]
    together = judged_agreement(table, axis, seed=seed)
    return together | {
        "order_agreement": order_agreement(table, axis),
        "by_type": by_type,
        "over_time": over_time,
    }


def _position(table: pd.DataFrame, axis: Axis) -> dict[str, Any]:
    """By place on the page, of the mean over those who saw the same page in the same order.

    Annotators who share an order share its candidates: only pages, not their answers, were ordered independently.
    """
    rows = table.assign(order=_order(table)).groupby(["kind", "task_id", "order", "position"], observed=True)[axis]
    means = rows.mean().reset_index()
    page = means.groupby(["kind", "task_id", "order"], observed=True).ngroup().to_numpy()
    effect = position_effect(means[axis].to_numpy(float), means["position"].to_numpy(int), page)
    return {"means": effect.means, "p": float(np.exp(effect.log_p)), "pages": effect.pages}


def _order(table: pd.DataFrame) -> NDArray[np.int64]:
    """(N,): of each row, a number that equal orders of candidates share.

    An order is known by the sum of random numbers drawn for each (candidate, place): two that differ have the same sum
    once in 2^60 times.
    """
    placements, kinds = pd.factorize(table["candidate_id"].astype(str) + "@" + table["position"].astype(str))
    drawn = np.random.default_rng(0).integers(2**60, size=len(kinds))
    answer = table.groupby(["annotator", "annotation_id"], observed=True).ngroup().to_numpy()
    sums = np.zeros(answer.max(initial=0) + 1, dtype=np.int64)
    np.add.at(sums, answer, drawn[placements])
    return sums[answer]

"""Judgements as a table: what every statistic of a campaign is counted from."""

from collections.abc import Sequence

import pandas as pd

from annotation.vocabulary import AXES, Judgement

COLUMNS = ("kind", "task_id", "candidate_id", "annotator", *AXES, "position", "seconds", "annotation_id", "created_at")


def judgement_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """A row a judgement, in the order given, with `COLUMNS` and `item`.

    `item` numbers the candidates 0.. in the order of (task, candidate); `if` and `vq` are 1..4; `position` counts from
    0; `seconds` is NaN where unknown; `created_at` is in UTC. Texts are categories: each is kept once.
    """
    table = pd.DataFrame(
        {
            "kind": pd.Categorical([one.kind for one in judgements]),
            "task_id": pd.Categorical([one.task_id for one in judgements]),
            "candidate_id": pd.Categorical([one.candidate_id for one in judgements]),
            "annotator": pd.Categorical([one.annotator for one in judgements]),
            "if": pd.array([one.instruction_following for one in judgements], dtype="int8").to_numpy(),
            "vq": pd.array([one.visual_quality for one in judgements], dtype="int8").to_numpy(),
            "position": pd.array([one.position for one in judgements], dtype="int16").to_numpy(),
            "seconds": pd.Series([one.seconds for one in judgements], dtype="float64"),
            "annotation_id": pd.array([one.annotation_id for one in judgements], dtype="int64").to_numpy(),
            "created_at": pd.to_datetime(pd.Series([one.created_at for one in judgements], dtype=object), utc=True),
        },
        columns=list(COLUMNS),
    )
    table["item"] = table.groupby(["task_id", "candidate_id"], observed=True, sort=True).ngroup().astype("int64")
    return table

"""Judgements as a table: what every statistic of a campaign is counted from."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES, Judgement

COLUMNS = ("kind", "task_id", "candidate_id", "annotator", *AXES, "position", "seconds", "annotation_id", "created_at")
PARTS, LEAST_TASKS = 4, 10
MONDAY = pd.Timestamp("2001-01-01", tz="UTC")


def judgement_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """A row a judgement, in the order given, with `COLUMNS` and `item`.

    `item` numbers the candidates 0.. in the order of (task, candidate); `if` and `vq` are 1..4; `position` counts from
    0; `seconds` is NaN where unknown; `created_at` is in UTC. Texts are categories: each is kept once.
    """
    table = pd.DataFrame(
        {
            "kind": pd.Categorical([judgement.kind for judgement in judgements]),
            "task_id": pd.Categorical([judgement.task_id for judgement in judgements]),
            "candidate_id": pd.Categorical([judgement.candidate_id for judgement in judgements]),
            "annotator": pd.Categorical([judgement.annotator for judgement in judgements]),
            "if": pd.array([judgement.instruction_following for judgement in judgements], dtype="int8").to_numpy(),
            "vq": pd.array([judgement.visual_quality for judgement in judgements], dtype="int8").to_numpy(),
            "position": pd.array([judgement.position for judgement in judgements], dtype="int16").to_numpy(),
            "seconds": pd.Series([judgement.seconds for judgement in judgements], dtype="float64"),
            "annotation_id": pd.array([judgement.annotation_id for judgement in judgements], dtype="int64").to_numpy(),
            "created_at": pd.to_datetime(
                pd.Series([judgement.created_at for judgement in judgements], dtype=object), utc=True
            ),
        },
        columns=list(COLUMNS),
    )
    table["item"] = table.groupby(["task_id", "candidate_id"], observed=True, sort=True).ngroup().astype("int64")
    return table


class TimePart(NamedTuple):
    """A stretch of a campaign."""

    begin: datetime
    end: datetime
    """Of the earliest and the latest rating in it."""
    rows: NDArray[np.bool_]
    """Which rows of the table fall into it; (N,)."""


def time_parts(table: pd.DataFrame) -> list[TimePart]:
    """A campaign's stretches in order: its weeks (from Monday, UTC) where it saw three or more, else equal parts.

    A candidate's ratings stay together: they belong where the last of them was given. There are at most
    PARTS equal parts of at least LEAST_TASKS tasks each.
    """
    if table.empty:
        return []
    last = table.groupby("item")["created_at"].max()
    weeks = ((last - MONDAY) // pd.Timedelta(days=7)).astype("int64")
    if weeks.nunique() < 3:
        parts = max(1, min(PARTS, table["task_id"].nunique() // LEAST_TASKS))
        weeks = (last.rank(method="first") - 1) * parts // len(last)
    number = weeks.loc[table["item"]].to_numpy()
    stretches = []
    for part_number in np.unique(number):
        rows = number == part_number
        times = table["created_at"][rows]
        stretches.append(TimePart(times.min().to_pydatetime(), times.max().to_pydatetime(), rows))
    return stretches

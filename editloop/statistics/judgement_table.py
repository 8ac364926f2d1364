"""Judgements as a table, from which all statistics of a campaign are computed."""

from collections.abc import Sequence
from datetime import datetime
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES, Judgement

COLUMNS = ("kind", "task_id", "candidate_id", "annotator", *AXES, "position", "seconds", "annotation_id", "created_at")
TYPES: dict[str, str] = {
    **dict.fromkeys(("kind", "task_id", "candidate_id", "annotator"), "category"),
    **{"if": "int8", "vq": "int8", "position": "int16", "seconds": "float64", "annotation_id": "int64"},
}
"""Types of the columns. Text is categorical, so that each text is stored once."""
PARTS, LEAST_TASKS = 4, 10
"""Most equal parts of a short campaign, and the tasks that each needs."""
MONDAY = pd.Timestamp("2001-01-01", tz="UTC")
"""A Monday, from which weeks are counted."""


def judgement_table(judgements: Sequence[Judgement]) -> pd.DataFrame:
    """Return judgements as a table, one row per judgement, in their order.

    Args:
        judgements: The judgements.

    Returns:
        The columns COLUMNS and `item`. `item` numbers the candidates from 0, sorted by (task, candidate). `if` and `vq`
        are 1..4. `position` counts from 0. `seconds` is NaN where unknown. `created_at` is in UTC.
    """
    values = map(attrgetter(*Judgement.model_fields), judgements)
    table = pd.DataFrame(values, columns=list(COLUMNS)).astype(TYPES)
    table["created_at"] = pd.to_datetime(table["created_at"].astype(object), utc=True)
    return with_items(table)


def with_items(table: pd.DataFrame) -> pd.DataFrame:
    """Add the column `item`, which numbers the candidates from 0, sorted by (task, candidate).

    Args:
        table: A table with the columns `task_id` and `candidate_id`.
    """
    items = table.groupby(["task_id", "candidate_id"], observed=True, sort=True).ngroup()
    return table.assign(item=items.astype("int64"))


class TimePart(NamedTuple):
    """One time period of a campaign."""

    begin: datetime
    """Time of the earliest rating."""
    end: datetime
    """Time of the latest rating."""
    rows: Bool[NDArray[np.bool_], " N"]
    """Which rows of the table belong to the period."""


def time_parts(table: pd.DataFrame) -> list[TimePart]:
    """Divide a campaign into its calendar weeks, or into equal parts where it had ratings in fewer than three.

    Weeks begin on Monday, UTC. A candidate's ratings stay together, in the period of the last of them. Equal parts hold
    equal numbers of candidates; there is one part per LEAST_TASKS tasks, at least one and at most PARTS.

    Args:
        table: A `judgement_table`.

    Returns:
        The periods in order of time. Empty for an empty table.
    """
    if table.empty:
        return []
    last = table.groupby("item")["created_at"].max()
    part = (last - MONDAY) // pd.Timedelta(days=7)
    if part.nunique() < 3:
        parts = max(1, min(PARTS, table["task_id"].nunique() // LEAST_TASKS))
        part = ((last.rank(method="first") - 1) * parts // len(last)).astype("int64")
    number = part.loc[table["item"]].to_numpy()
    stretches = []
    for part_number in np.unique(number):
        rows = number == part_number
        times = table["created_at"][rows]
        stretches.append(TimePart(times.min().to_pydatetime(), times.max().to_pydatetime(), rows))
    return stretches

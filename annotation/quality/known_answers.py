"""Annotators' accuracy on gold pages, whose answers are known, and consistency on repeated pages."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from editloop.data.vocabulary import AXES, Page


class Share(NamedTuple):
    """Share of answers that are right, in 0..1."""

    value: float
    error: float
    """Standard error, clustered by page, at least the binomial one."""
    answers: int
    pages: int
    """Pages that the answers are on."""


def gold_answers(checks: pd.DataFrame, pages: Sequence[Page]) -> pd.DataFrame:
    """Compare the ratings on gold pages with the known answers.

    Args:
        checks: A `judgement_table` of repeats and gold.
        pages: The campaign's pages, which hold the known answers.

    Returns:
        A table with one row per rating whose answer is known: annotator, annotation_id, axis, right (0 or 1).
    """
    expected_rows = [
        (page.task_id, candidate, axis, *bounds)
        for page in pages
        if page.kind == "gold"
        for candidate, expected in page.expected.items()
        for axis, bounds in expected.items()
    ]
    answers = pd.DataFrame(expected_rows, columns=["task_id", "candidate_id", "axis", "low", "high"])
    gold = _texts(checks[checks["kind"] == "gold"])
    ratings = gold.melt(id_vars=list(_KEYS), value_vars=list(AXES), var_name="axis", value_name="rating")
    compared = ratings.merge(answers, on=["task_id", "candidate_id", "axis"])
    right = (compared["low"] <= compared["rating"]) & (compared["rating"] <= compared["high"])
    return compared.assign(right=right.astype(float))[["annotator", "annotation_id", "axis", "right"]]


def repeated_answers(judgements: pd.DataFrame, checks: pd.DataFrame) -> pd.DataFrame:
    """Compare the ratings on repeated pages with the same annotator's first ratings.

    Args:
        judgements: A `judgement_table` of the campaign's own pages.
        checks: A `judgement_table` of repeats and gold.

    Returns:
        A table with one row per rating that an annotator gave twice: annotator, annotation_id (of the repeat), axis,
        difference (absolute, in levels).
    """
    first = _texts(judgements)
    second = _texts(checks[checks["kind"] == "repeat"])
    compared = first.merge(second, on=["task_id", "candidate_id", "annotator"], suffixes=("", "_again"))
    rows = [
        pd.DataFrame(
            {
                "annotator": compared["annotator"],
                "annotation_id": compared["annotation_id_again"],
                "axis": axis,
                "difference": (compared[f"{axis}_again"].astype(int) - compared[axis].astype(int)).abs(),
            }
        )
        for axis in AXES
    ]
    return pd.concat(rows, ignore_index=True)


def clustered_share(right: NDArray[np.float64], page: NDArray[np.int64]) -> Share | None:
    """Return the share of right answers, with a standard error clustered by page.

    Args:
        right: 1 for a right answer, 0 for a wrong one, (n,).
        page: Page of each answer, any integers, (n,).

    Returns:
        The share; None without answers.
    """
    if len(right) == 0:
        return None
    _, number = np.unique(page, return_inverse=True)
    value, pages = float(right.mean()), int(number.max()) + 1
    sums = np.bincount(number, right - value)
    clustered = (sums**2).sum() / len(right) ** 2 * pages / max(1, pages - 1)
    return Share(value, float(np.sqrt(max(clustered, value * (1 - value) / len(right)))), len(right), pages)


_KEYS = ("task_id", "candidate_id", "annotator", "annotation_id")


def _texts(table: pd.DataFrame) -> pd.DataFrame:
    """Return the key and axis columns with keys as plain strings: categories of two tables do not join."""
    return table[[*_KEYS, *AXES]].astype(dict.fromkeys(_KEYS[:3], str))

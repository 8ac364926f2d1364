"""Figures of an editor on a benchmark: means by type of task and over the types, as published, with intervals.

A figure of a type is the mean over its edits with a score; the average is the plain mean over the types. Edits without
a score are left out and counted. Intervals come from resampling whole source images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError
from editloop.evaluation.suites.ratios import RatioEstimate, Ratios
from editloop.models.edit_score.settings import AXES

OVERALL = "overall"
GEDIT_FIGURES = ("SC", "PQ", "O")
"""GEdit-Bench's figures, 0..10, of a judge with EditScore's (and VIEScore's) four points: SC and PQ are the lesser
point of their question, O is sqrt(SC x PQ) of each edit."""


@dataclass(frozen=True)
class ScoredEdit:
    """An edit of a benchmark with a judge's numbers."""

    key: str
    cluster: str
    """sha256 of the source. Edits of one source are dependent."""
    task: str
    tables: tuple[str, ...]
    seed: int | None
    """Seed of the noise; None of an edit that was imported."""
    numbers: Mapping[str, float]
    """By figure; empty where the score is missing."""
    missing: str = ""
    """Why there is no score; empty where there is one."""
    sha256: str = ""
    """Of the edit's file; empty where there is none."""
    reward: float | None = None
    """The judge's reward, 0..1; None where there is none."""


class TableFigures(NamedTuple):
    """Figures of one table, such as a language's full set."""

    by_task: dict[str, dict[str, RatioEstimate]]
    """By type of task and figure."""
    average: dict[str, RatioEstimate]
    """By figure: the plain mean over the types."""
    edits: dict[str, int]
    """Number of edits by type."""
    missing: dict[str, int]
    """Number of those without a score, by type."""


def figure_names(axes: Sequence[str]) -> tuple[str, ...]:
    """Return the names of a judge's figures, the one that editors are compared by last.

    Args:
        axes: The judge's axes.
    """
    if tuple(axes) == AXES:
        return GEDIT_FIGURES
    return (*axes, OVERALL) if len(axes) > 1 else (OVERALL,)


def figures_of_score(axis_means: Mapping[str, float], fused: float, overall: float) -> dict[str, float]:
    """Return the figures of one edit.

    Args:
        axis_means: The score by axis, in the order of the judge's axes.
        fused: The published score; of EditScore's kind O, the mean over passes.
        overall: The judge's own overall score.
    """
    names = figure_names(tuple(axis_means))
    if names == GEDIT_FIGURES:
        points = [axis_means[axis] for axis in AXES]
        return dict(zip(GEDIT_FIGURES, (min(points[:2]), min(points[2:]), fused), strict=True))
    return {name: overall if name == OVERALL else axis_means[name] for name in names}


def suite_figures(edits: Sequence[ScoredEdit], names: Sequence[str], *, seed: int = 0) -> dict[str, TableFigures]:
    """Return all figures with their intervals, by table.

    Args:
        edits: The edits of a whole benchmark.
        names: Names of the figures.
        seed: Seed of the resampling.
    """
    answered = np.array([not edit.missing for edit in edits], dtype=np.float64)
    values = {name: np.array([edit.numbers.get(name, 0.0) for edit in edits]) for name in names}
    return _tables(edits, values, answered, seed)


def figure_changes(
    new: Sequence[ScoredEdit], old: Sequence[ScoredEdit], names: Sequence[str], *, seed: int = 0
) -> dict[str, TableFigures]:
    """Return the changes from one editor to another, with paired intervals, by table.

    Edits without a score of either editor are left out.

    Args:
        new: The edits of one editor.
        old: The edits of the other, of the same tasks.
        names: Names of the figures.
        seed: Seed of the resampling.

    Raises:
        EditLoopError: The two are not of the same tasks.
    """
    old_by_key = {edit.key: edit for edit in old}
    if unmatched := sorted(old_by_key.keys() ^ {edit.key for edit in new}):
        raise EditLoopError(
            f"{len(unmatched)} tasks are in one result and not in the other ({', '.join(unmatched[:3])}); editors are "
            "compared on the same tasks."
        )
    pairs = [(edit, old_by_key[edit.key]) for edit in new]
    answered = np.array([not edit.missing and not before.missing for edit, before in pairs], dtype=np.float64)
    values = {
        name: np.array([edit.numbers.get(name, 0.0) - before.numbers.get(name, 0.0) for edit, before in pairs])
        for name in names
    }
    return _tables(new, values, answered, seed)


def _tables(
    edits: Sequence[ScoredEdit],
    values: Mapping[str, NDArray[np.float64]],
    answered: NDArray[np.float64],
    seed: int,
) -> dict[str, TableFigures]:
    tables = list(dict.fromkeys(table for edit in edits for table in edit.tables))
    tasks = list(dict.fromkeys(edit.task for edit in edits))
    task_of = np.array([edit.task for edit in edits])
    ratios = Ratios([edit.cluster for edit in edits])
    inside = {
        (table, task): np.array([table in edit.tables for edit in edits]) & (task_of == task)
        for table in tables
        for task in tasks
    }
    for (table, task), members in inside.items():
        for name, column in values.items():
            ratios.add(f"{table}|{task}|{name}", column * members * answered, members * answered)
    ratios.resample(seed)
    figures = {}
    for table in tables:
        present = [task for task in tasks if inside[table, task].any()]
        figures[table] = TableFigures(
            {task: {name: ratios.figure(f"{table}|{task}|{name}") for name in values} for task in present},
            {name: ratios.mean([f"{table}|{task}|{name}" for task in present]) for name in values},
            {task: int(inside[table, task].sum()) for task in present},
            {task: int((inside[table, task] * (1 - answered)).sum()) for task in present},
        )
    return figures

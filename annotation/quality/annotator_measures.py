"""Measures of every annotator relative to the others, by axis.

`annotation.quality.annotator_flags` tests which of them are conspicuous.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annotation.quality.annotator_effects import Slope, joint_effects, others_mean, slope
from annotation.quality.position_bias import PositionEffect, position_effect
from editloop.data.vocabulary import AXES, HIGHEST_RATING, LOWEST_RATING, Axis, EditTask

ROOM = 0.5
"""Levels. Near the ends of the scale a shift cannot show, so it is measured only on candidates whose mean rating is at
least this far from either end."""


class EffectEstimate(NamedTuple):
    """An effect in levels, its standard error, and the number of the annotator's pages that it is estimated from."""

    value: float
    error: float
    pages: int


class Measures(NamedTuple):
    """Measures of one annotator on one axis; None where the data are not sufficient."""

    shift: EffectEstimate | None
    """Difference from the median annotator, at the middle of the annotator's pages."""
    drift: EffectEstimate | None
    """Change of that shift from the annotator's first page to the last."""
    follows: Slope | None
    """Regression on the others' mean."""
    pages: int
    """Pages that `follows` is estimated from."""
    position: PositionEffect
    """Effect of the position on the page on the ratings."""
    position_apart: PositionEffect
    """Effect of the position on the differences from the others' mean."""
    editors: dict[str, EffectEstimate]
    """By editor: how much more than the median annotator this one favours its edits over those of all other editors."""


def with_time_and_editor(table: pd.DataFrame, tasks: Sequence[EditTask]) -> pd.DataFrame:
    """Add the columns `time` and `editor` to a judgement table.

    Args:
        table: A `judgement_table`.
        tasks: The tasks of the candidates, which name the editors; may be empty.

    Returns:
        The table with `time`, from -0.5 (near the annotator's first page) to 0.5 (near the last), 0 where all of their
        pages have one time; and `editor`, "" where unknown.
    """
    pages = table.drop_duplicates(["annotator", "annotation_id"]).sort_values(["created_at", "annotation_id"])
    by = pages.groupby("annotator", observed=True)
    rank, count = by.cumcount(), by["annotation_id"].transform("size")
    several = by["created_at"].transform("nunique") > 1
    pages = pages.assign(time=np.where(several, (rank + 0.5) / count - 0.5, 0.0))
    timed = table.merge(pages[["annotator", "annotation_id", "time"]], on=["annotator", "annotation_id"], how="left")
    editors = {
        (task.task_id, candidate.candidate_id): candidate.editor for task in tasks for candidate in task.candidates
    }
    keys = zip(timed["task_id"], timed["candidate_id"], strict=True)
    return timed.assign(editor=pd.Categorical([editors.get(key, "") for key in keys]))


def annotator_measures(table: pd.DataFrame, checks: pd.DataFrame) -> dict[str, dict[Axis, Measures]]:
    """Return the measures of every annotator.

    Args:
        table: A judgement table from `with_time_and_editor`.
        checks: A `judgement_table` of repeats and gold; only the position effects use it.

    Returns:
        The measures, by annotator and axis.
    """
    names, by_axis = np.unique(np.concatenate([table["annotator"].astype(str), checks["annotator"].astype(str)])), {}
    for axis in AXES:
        against = _against_others(table, axis)
        by_editor = _by_editor(table, axis)
        position_rows = pd.concat(
            [frame[["annotator", "annotation_id", "position", axis]] for frame in (table, checks)]
        )
        by_axis[axis] = {
            name: Measures(
                *against.get(name, (None, None)),
                *_follows(rows, axis),
                _position(position_rows[position_rows["annotator"] == name], axis),
                _position(rows, "apart"),
                by_editor.get(name, {}),
            )
            for name, rows in _shared_rows(table, axis, names).items()
        }
    return {name: {axis: by_axis[axis][name] for axis in AXES} for name in names}


def _shared(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the ratings of candidates that have two or more ratings."""
    return table[np.bincount(table["item"])[table["item"]] > 1] if len(table) else table


def _with_room(table: pd.DataFrame, axis: Axis) -> pd.DataFrame:
    mean = table.groupby("item")[axis].transform("mean")
    return table[(mean >= LOWEST_RATING + ROOM) & (mean <= HIGHEST_RATING - ROOM)]


def _joint(
    rows: pd.DataFrame, axis: Axis, features: NDArray[np.float64]
) -> list[tuple[str, int, NDArray[np.float64], NDArray[np.float64]]]:
    """Return (annotator, pages, effects (F,), errors (F,)) of every annotator in the rows."""
    annotator, names = pd.factorize(rows["annotator"].astype(str), sort=True)
    item, task = pd.factorize(rows["item"])[0], pd.factorize(rows["task_id"])[0]
    effects = joint_effects(rows[axis].to_numpy(float), item, annotator, features, task, len(names))
    pages = rows.groupby(annotator)["annotation_id"].nunique()
    return [(name, int(pages[k]), effects.values[k], effects.errors[k]) for k, name in enumerate(names)]


def _against_others(table: pd.DataFrame, axis: Axis) -> dict[str, tuple[EffectEstimate | None, EffectEstimate | None]]:
    rows = _shared(_with_room(table, axis))
    if rows["annotator"].nunique() < 2:
        return {}
    time = rows["time"].to_numpy()
    moving = rows["time"].abs().groupby(rows["annotator"].astype(str)).max() > 0
    return {
        name: (
            EffectEstimate(float(value[0]), float(error[0]), pages),
            EffectEstimate(float(value[1]), float(error[1]), pages) if moving[name] else None,
        )
        for name, pages, value, error in _joint(rows, axis, np.stack([np.ones_like(time), time], axis=1))
    }


def _by_editor(table: pd.DataFrame, axis: Axis) -> dict[str, dict[str, EffectEstimate]]:
    rows = _shared(_with_room(table[table["editor"] != ""], axis))
    editors = sorted(rows["editor"].astype(str).unique())
    by_annotator: dict[str, dict[str, EffectEstimate]] = {}
    if rows["annotator"].nunique() < 2 or len(editors) < 2:
        return by_annotator
    for editor in editors:
        from_editor = (rows["editor"] == editor).to_numpy(float)
        features = np.stack([np.ones_like(from_editor), from_editor - from_editor.mean()], axis=1)
        pages = rows[from_editor > 0].groupby(rows["annotator"].astype(str))["annotation_id"].nunique()
        for name, _, value, error in _joint(rows, axis, features):
            if name in pages:
                by_annotator.setdefault(name, {})[editor] = EffectEstimate(
                    float(value[1]), float(error[1]), int(pages[name])
                )
    return by_annotator


def _shared_rows(table: pd.DataFrame, axis: Axis, names: NDArray[Any]) -> dict[str, pd.DataFrame]:
    """Return each annotator's ratings of shared candidates, with columns `others` (the others' mean) and `apart`.

    `apart` is the rating's difference from `others`.
    """
    others = others_mean(table[axis].to_numpy(float), table["item"].to_numpy()) if len(table) else np.zeros(0)
    rows = table.assign(others=others, apart=table[axis] - others)
    rows = rows[rows["others"].notna()]
    by_name = {str(name): annotator_rows for name, annotator_rows in rows.groupby("annotator", observed=True)}
    return {str(name): by_name.get(str(name), rows[:0]) for name in names}


def _follows(rows: pd.DataFrame, axis: Axis) -> tuple[Slope | None, int]:
    if len(rows) == 0 or rows["others"].nunique() < 2:
        return None, 0
    page = pd.factorize(rows["annotation_id"])[0]
    fitted = slope(rows[axis].to_numpy(float), rows["others"].to_numpy(), rows["time"].to_numpy(), page)
    return fitted, int(page.max()) + 1


def _position(rows: pd.DataFrame, column: str) -> PositionEffect:
    page = pd.factorize(rows["annotation_id"])[0]
    return position_effect(rows[column].to_numpy(float), rows["position"].to_numpy(int), page)

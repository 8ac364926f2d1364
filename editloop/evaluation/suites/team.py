"""Reads the team's own suites from a dataset's test split: pairs as its experts order them, or as the oracle does."""

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from editloop.content import read_manifest
from editloop.datasets.labels import TIE
from editloop.datasets.shards import REFERENCES
from editloop.datasets.splits import unread_shards
from editloop.datasets.votes import JUDGEMENTS, read_votes
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.faults import NothingToMeasureError
from editloop.evaluation.suites.hub_rows import table_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import Comparison, Item, PictureRef

CLEAR_GAP = 0.1
"""A pair is clear if its oracle scores (0..1) differ by more: an attentive expert would order it like the oracle."""
COLUMNS = ("task_id", "task_type", "instruction", "candidate_id", "if_mean", "vq_mean")
PICTURES = ("source", "image")

Scores = NDArray[np.float64]
"""(K,), or (raters, K)."""


class CandidateRow(NamedTuple):
    """A row of the test split's candidates. An image that cannot be read is None."""

    values: dict[str, object]
    source: PictureRef | None
    edit: PictureRef | None
    references: tuple[PictureRef | None, ...]


def read_heldout(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return an item for each task. Its comparisons are the pairs whose mean ratings differ by more than TIE.

    A rating is the sum of both axes, 2..8. If the folder holds the votes, items have each rater's ratings, from which
    the human ceiling is computed.

    Args:
        data: A dataset folder.
        loader: Loads the images and collects their faults.
        faults: Part of the readers' signature; not used, as all faults of a dataset folder are errors or the loader's.

    Raises:
        EditLoopError: The folder is not a dataset, has changed since it was written, or cannot be read.
    """
    items = _tasks(data, loader)
    votes = _votes(data)
    ordered_items = []
    for item, ratings in items:
        item_votes = votes.get(item.key, {})
        raters = tuple(sorted({rater for rater, _ in item_votes}))
        rater_ratings = [
            [item_votes.get((rater, candidate), np.nan) for candidate in item.candidates] for rater in raters
        ]
        ordered_items.append(_with_comparisons(item, ratings, TIE, np.array(rater_ratings) if raters else None, raters))
    return ordered_items


def read_scenes(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return an item for each task with a known right result. Its comparisons are the oracle's clear pairs.

    Args:
        data: A dataset folder.
        loader: Loads the images and collects their faults.
        faults: Part of the readers' signature; not used, as all faults of a dataset folder are errors or the loader's.

    Raises:
        NothingToMeasureError: No task of the test split has a known right result.
        EditLoopError: The folder is not a dataset, has changed since it was written, or cannot be read.
    """
    from editloop.datasets.preference_groups import read_groups

    items, groups = _tasks(data, loader), read_groups(data, "test")
    ordered_items = [
        _with_comparisons(item, np.asarray(oracle.mean, np.float64), CLEAR_GAP, None, ())
        for (item, _), group in zip(items, groups, strict=True)
        if (oracle := oracle_of_group(group)) is not None
    ]
    if not ordered_items:
        raise NothingToMeasureError(
            f"--data {data}: no task of its test split has a known right result; take suite heldout."
        )
    return ordered_items


def _tasks(data: Path, loader: PictureLoader) -> list[tuple[Item, Scores]]:
    """The test split's tasks, without comparisons, and the experts' overall mean rating of each candidate, (K,)."""
    read_manifest(data, check=True, skip=unread_shards("test"))
    rows: dict[str, list[CandidateRow]] = {}
    paths = sorted(data.glob("candidates-test-*.parquet"))
    if not paths:
        raise EditLoopError(f"--data {data}: no candidates-test-*.parquet in it; give a folder of stage dataset.")
    for path in paths:
        columns = [*PICTURES, *({REFERENCES} & {*pq.read_schema(path).names})]
        for values, pictures in table_rows(path, COLUMNS, columns, loader):
            row = CandidateRow(values, pictures["source"][0], pictures["image"][0], pictures.get(REFERENCES, ()))
            rows.setdefault(str(values["task_id"]), []).append(row)
    rated_items = []
    for task, members in rows.items():
        first, source, _, references = members[0]
        edits = tuple(row.edit for row in members)
        if source is None or not all(edits) or not all(references):
            continue
        means = [[row.values["if_mean"], row.values["vq_mean"]] for row in members]
        ratings = np.array(means, dtype=np.float64).sum(axis=1)
        item = Item(
            key=task,
            cluster=source,
            slice=str(first["task_type"]),
            instruction=str(first["instruction"]),
            candidates=tuple(str(row.values["candidate_id"]) for row in members),
            source=source,
            edits=tuple(edit for edit in edits if edit),
            references=tuple(reference for reference in references if reference),
        )
        rated_items.append((item, ratings))
    return rated_items


def _with_comparisons(item: Item, scores: Scores, gap: float, ratings: Scores | None, raters: tuple[str, ...]) -> Item:
    """The item with the pairs whose scores differ by more than `gap` as comparisons TASK:CANDIDATE:CANDIDATE."""
    comparisons = tuple(
        Comparison(
            f"{item.key}:{item.candidates[i]}:{item.candidates[j]}", i, j, "left" if scores[i] > scores[j] else "right"
        )
        for i, j in combinations(range(len(scores)), 2)
        if abs(scores[i] - scores[j]) > gap
    )
    return replace(item, comparisons=comparisons, ratings=ratings, raters=raters)


def _votes(data: Path) -> dict[str, dict[tuple[str, str], float]]:
    """Overall ratings, 2..8, by task and (rater, candidate). Empty if the folder holds no votes."""
    if not (data / JUDGEMENTS).is_file():
        return {}
    ratings: dict[str, dict[tuple[str, str], float]] = {}
    for vote in read_votes(data).judged:
        overall = float(vote.instruction_following + vote.visual_quality)
        ratings.setdefault(vote.task_id, {})[vote.annotator, vote.candidate_id] = overall
    return ratings

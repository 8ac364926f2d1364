"""The team's own suites, from a dataset folder's test split: what its experts order, and what the oracle orders."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.content import read_manifest
from editloop.datasets.labels import TIE
from editloop.datasets.votes import JUDGEMENTS, read_votes
from editloop.errors import EditLoopError
from editloop.evaluation.oracle import oracle_of_group
from editloop.evaluation.suites.hub_rows import table_rows
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import Comparison, Item, PictureRef

CLEAR_GAP = 0.1
"""Pairs whose oracle scores (0..1) differ by more are clear: an attentive expert would order them so."""
COLUMNS = ("task_id", "task_type", "instruction", "candidate_id", "if_mean", "vq_mean")
PICTURES = ("source", "image")

Scores = NDArray[np.float64]


def read_heldout(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """A task an item; its comparisons are the pairs whose mean ratings (sum of the axes, 2..8) differ by more than TIE.

    Where the folder holds the votes, each rater's own ratings are kept: what people agree on is the judge's ceiling.
    EditLoopError for a folder that changed since it was written.
    """
    items = _tasks(data, loader, faults)
    votes = _votes(data, [item.key for item, _ in items])
    ordered_items = []
    for item, ratings in items:
        raters = tuple(sorted({rater for rater, _ in votes.get(item.key, {})}))
        item_votes = votes.get(item.key, {})
        rater_ratings = [
            [item_votes.get((rater, candidate), np.nan) for candidate in item.candidates] for rater in raters
        ]
        ordered_items.append(_with_comparisons(item, ratings, TIE, np.array(rater_ratings) if raters else None, raters))
    return ordered_items


def read_scenes(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """The same tasks, ordered by the oracle: the pairs whose scores differ by more than CLEAR_GAP.

    EditLoopError where no task of the split has a known right result.
    """
    from editloop.datasets.preference_groups import read_groups

    items, groups = _tasks(data, loader, faults), read_groups(data, "test")
    ordered_items, with_oracle = [], 0
    for (item, _), group in zip(items, groups, strict=True):
        oracle = oracle_of_group(group)
        with_oracle += oracle is not None
        if oracle is not None:
            ordered_items.append(_with_comparisons(item, np.asarray(oracle.mean, np.float64), CLEAR_GAP, None, ()))
    if not with_oracle:
        raise EditLoopError(f"--data {data}: no task of its test split has a known right result; take suite heldout.")
    return ordered_items


def _tasks(data: Path, loader: PictureLoader, faults: list[str]) -> list[tuple[Item, Scores]]:
    """The tasks of the test split without comparisons, and the experts' overall mean rating of each candidate, (K,)."""
    read_manifest(data, check=True)
    rows: dict[str, list[tuple[dict[str, object], tuple[PictureRef | None, ...]]]] = {}
    paths = sorted(data.glob("candidates-test-*.parquet"))
    if not paths:
        raise EditLoopError(f"--data {data}: no candidates-test-*.parquet in it; give a folder of stage dataset.")
    for path in paths:
        for values, pictures in table_rows(path, COLUMNS, PICTURES, loader):
            row_pictures = (pictures["source"][0], pictures["image"][0])
            rows.setdefault(str(values["task_id"]), []).append((values, row_pictures))
    rated_items = []
    for task, members in rows.items():
        first, (source, _) = members[0]
        edits = tuple(pictures[1] for _, pictures in members)
        if source is None or not all(edits):
            continue
        ratings = np.array([[row["if_mean"], row["vq_mean"]] for row, _ in members], dtype=np.float64).sum(axis=1)
        item = Item(
            key=task,
            cluster=source.sha256,
            slice=str(first["task_type"]),
            instruction=str(first["instruction"]),
            candidates=tuple(str(row["candidate_id"]) for row, _ in members),
            source=source,
            edits=tuple(edit for edit in edits if edit),
        )
        rated_items.append((item, ratings))
    return rated_items


def _with_comparisons(item: Item, scores: Scores, gap: float, ratings: Scores | None, raters: tuple[str, ...]) -> Item:
    """The item with the pairs whose scores differ by more than `gap`, called TASK:CANDIDATE:CANDIDATE."""
    comparisons = tuple(
        Comparison(
            f"{item.key}:{item.candidates[i]}:{item.candidates[j]}", i, j, "left" if scores[i] > scores[j] else "right"
        )
        for i, j in combinations(range(len(scores)), 2)
        if abs(scores[i] - scores[j]) > gap
    )
    return Item(
        key=item.key,
        cluster=item.cluster,
        slice=item.slice,
        instruction=item.instruction,
        candidates=item.candidates,
        comparisons=comparisons,
        ratings=ratings,
        raters=raters,
        source=item.source,
        edits=item.edits,
    )


def _votes(data: Path, tasks: Sequence[str]) -> dict[str, dict[tuple[str, str], float]]:
    """By task: each rater's overall rating (2..8) of each candidate; nothing where the folder keeps no votes."""
    if not (data / JUDGEMENTS).is_file():
        return {}
    task_ids = set(tasks)
    ratings: dict[str, dict[tuple[str, str], float]] = {}
    for vote in read_votes(data).judged:
        if vote.task_id in task_ids:
            overall = float(vote.instruction_following + vote.visual_quality)
            ratings.setdefault(vote.task_id, {})[vote.annotator, vote.candidate_id] = overall
    return ratings

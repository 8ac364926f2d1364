"""Reads AURORA-Bench (arXiv 2407.03471): pairs whose winner is an editor or `tie`, and single edits with a score."""

from pathlib import Path
from typing import Any

import numpy as np

from editloop.errors import EditLoopError
from editloop.evaluation.suites.hub_rows import read_records
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import ALL, Item, Label, PictureRef, pair_item

PAIRS = "human_ratings_pairwise.json"
POINTS = "human_ratings_updated_prompt.json"

ScoredEdits = dict[str, tuple[tuple[PictureRef, ...], float]]
"""Pictures (source and edit) and score, by editor."""


def read_aurora_bench(data: Path, loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Return the items: `pair-N` for each pair, and `point-N` for each source and prompt with scored edits, N from 0.

    A point item's candidates are named by their editors.

    Args:
        data: Folder with human_ratings_pairwise.json, human_ratings_updated_prompt.json or both.
        loader: Loads the images and collects their faults.
        faults: Receives the other faults, a sentence each.

    Raises:
        EditLoopError: Both files are missing, or one cannot be read.
    """
    paths = [data / name for name in (PAIRS, POINTS)]
    if not any(path.is_file() for path in paths):
        raise EditLoopError(f"--data {data}: neither {PAIRS} nor {POINTS} in it.")
    pairs, points = (read_records(path) if path.is_file() else [] for path in paths)
    pair_items = [_pair_item(number, record, loader, faults) for number, record in enumerate(pairs)]
    return [item for item in pair_items if item] + _point_items(points, loader, faults)


def _pair_item(number: int, record: dict[str, Any], loader: PictureLoader, faults: list[str]) -> Item | None:
    name = f"{PAIRS} row {number}"
    gens, models, winner = record.get("gens"), record.get("models"), record.get("winner")
    if not (isinstance(gens, list) and len(gens) == 2 and isinstance(models, list) and len(models) == 2):
        faults.append(f"{name}: two gens and two models are wanted")
        return None
    labels: dict[Any, Label] = {models[0]: "left", models[1]: "right", "tie": "tie"}
    if winner not in labels:
        faults.append(f"{name}: winner {winner!r} is neither {models[0]}, {models[1]} nor tie")
        return None
    pictures = _pictures(record, [record.get("input"), *gens], name, loader, faults)
    if pictures is None:
        return None
    return pair_item(f"pair-{number}", labels[winner], record["prompt"], pictures, _kind(record))


def _point_items(records: list[dict[str, Any]], loader: PictureLoader, faults: list[str]) -> list[Item]:
    """Items of the scored edits: one for each source and prompt; a second edit by the same editor starts another."""
    groups: list[tuple[dict[str, Any], ScoredEdits]] = []
    open_groups: dict[tuple[Any, Any], ScoredEdits] = {}
    for number, record in enumerate(records):
        name, model, score = f"{POINTS} row {number}", str(record.get("model", "unknown")), record.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
            faults.append(f"{name}: score {score!r} is not a finite number")
            continue
        pictures = _pictures(record, [record.get("input"), record.get("gen")], name, loader, faults)
        if pictures is None:
            continue
        task_key = (record["input"], record["prompt"])
        if task_key not in open_groups or model in open_groups[task_key]:
            open_groups[task_key] = {}
            groups.append((record, open_groups[task_key]))
        open_groups[task_key][model] = (pictures, float(score))
    return [_point_item(number, record, edits) for number, (record, edits) in enumerate(groups)]


def _point_item(number: int, first_record: dict[str, Any], edits: ScoredEdits) -> Item:
    """The item of edits by several editors, one for each editor."""
    source, _ = next(iter(edits.values()))[0]
    return Item(
        key=f"point-{number}",
        cluster=source,
        slice=_kind(first_record),
        instruction=first_record["prompt"],
        candidates=tuple(edits),
        ratings=np.array([[score for _, score in edits.values()]]),
        raters=("published score",),
        source=source,
        edits=tuple(pictures[1] for pictures, _ in edits.values()),
    )


def _pictures(
    record: dict[str, Any], paths: list[Any], name: str, loader: PictureLoader, faults: list[str]
) -> tuple[PictureRef, ...] | None:
    if not isinstance(record.get("prompt"), str):
        faults.append(f"{name}: no prompt")
        return None
    pictures = [loader.file(path if isinstance(path, str) else "", name) for path in paths]
    readable = tuple(picture for picture in pictures if picture)
    return readable if len(readable) == len(pictures) else None


def _kind(record: dict[str, Any]) -> str:
    return str(record.get("task") or record.get("dataset") or ALL)

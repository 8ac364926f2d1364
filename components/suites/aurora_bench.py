"""AURORA-Bench (arXiv 2407.03471): pairs whose winner is a model's name or `tie`, and single edits with a score."""

from pathlib import Path
from typing import Any

import numpy as np

from components.suites.hub_rows import read_records
from components.suites.pictures import Shelf
from components.suites.suite import ALL, Comparison, Item, Label, PictureAt
from infra.errors import EditLoopError

PAIRS = "human_ratings_pairwise.json"
POINTS = "human_ratings_updated_prompt.json"


def read_aurora_bench(data: Path, shelf: Shelf, faults: list[str]) -> list[Item]:
    """Its items: `pair-N` of the pairs' file, and one `point-N` a source and prompt of the scored edits, N from 0.

    Either file may be missing. A point item's candidates are the editors' names.
    """
    paths = [data / name for name in (PAIRS, POINTS)]
    if not any(path.is_file() for path in paths):
        raise EditLoopError(f"--data {data}: neither {PAIRS} nor {POINTS} in it.")
    pairs, points = (read_records(path) if path.is_file() else [] for path in paths)
    found = [_pair(number, record, shelf, faults) for number, record in enumerate(pairs)]
    return [item for item in found if item] + _points(points, shelf, faults)


def _pair(number: int, record: dict[str, Any], shelf: Shelf, faults: list[str]) -> Item | None:
    name = f"{PAIRS} row {number}"
    gens, models, winner = record.get("gens"), record.get("models"), record.get("winner")
    if not (isinstance(gens, list) and len(gens) == 2 and isinstance(models, list) and len(models) == 2):
        faults.append(f"{name}: two gens and two models are wanted")
        return None
    labels: dict[Any, Label] = {models[0]: "left", models[1]: "right", "tie": "tie"}
    if winner not in labels:
        faults.append(f"{name}: winner {winner!r} is neither {models[0]}, {models[1]} nor tie")
        return None
    found = _pictures(record, [record.get("input"), *gens], name, shelf, faults)
    if found is None:
        return None
    return Item(
        key=f"pair-{number}",
        cluster=found[0].sha256,
        slice=_kind(record),
        instruction=record["prompt"],
        candidates=("left", "right"),
        comparisons=(Comparison(f"pair-{number}", 0, 1, labels[winner]),),
        source=found[0],
        edits=found[1:],
    )


def _points(records: list[dict[str, Any]], shelf: Shelf, faults: list[str]) -> list[Item]:
    """Edits of one source and prompt are one item; a second edit by the same editor opens another."""
    groups: list[dict[str, tuple[PictureAt, ...]]] = []
    scores: list[dict[str, float]] = []
    heads: list[dict[str, Any]] = []
    open_group: dict[tuple[Any, Any], int] = {}
    for number, record in enumerate(records):
        name, model, score = f"{POINTS} row {number}", str(record.get("model", "unknown")), record.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not np.isfinite(score):
            faults.append(f"{name}: score {score!r} is not a finite number")
            continue
        found = _pictures(record, [record.get("input"), record.get("gen")], name, shelf, faults)
        if found is None:
            continue
        asked = (record["input"], record["prompt"])
        if asked not in open_group or model in groups[open_group[asked]]:
            open_group[asked] = len(groups)
            groups.append({})
            scores.append({})
            heads.append(record)
        groups[open_group[asked]][model] = found
        scores[open_group[asked]][model] = float(score)
    return [
        Item(
            key=f"point-{number}",
            cluster=next(iter(group.values()))[0].sha256,
            slice=_kind(head),
            instruction=head["prompt"],
            candidates=tuple(group),
            ratings=np.array([list(given.values())]),
            raters=("published score",),
            source=next(iter(group.values()))[0],
            edits=tuple(pictures[1] for pictures in group.values()),
        )
        for number, (group, given, head) in enumerate(zip(groups, scores, heads, strict=True))
    ]


def _pictures(
    record: dict[str, Any], paths: list[Any], name: str, shelf: Shelf, faults: list[str]
) -> tuple[PictureAt, ...] | None:
    if not isinstance(record.get("prompt"), str):
        faults.append(f"{name}: no prompt")
        return None
    found = [shelf.file(path if isinstance(path, str) else "", name) for path in paths]
    whole = tuple(one for one in found if one)
    return whole if len(whole) == len(found) else None


def _kind(record: dict[str, Any]) -> str:
    return str(record.get("task") or record.get("dataset") or ALL)

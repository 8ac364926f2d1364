"""Preference groups in memory: all candidates of a task, with the experts' ratings, ready for a reward model."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from annotation.oracle import Oracle, oracle, shrink


@dataclass(frozen=True)
class Group:
    """One task and its K candidates."""

    task_id: str
    task_type: str
    instruction: str
    candidates: tuple[str, ...]
    editors: tuple[str, ...]
    source: NDArray[np.uint8]
    """(side, side, 3)"""
    target: NDArray[np.uint8] | None
    edits: NDArray[np.uint8]
    """(K, side, side, 3)"""
    ratings: NDArray[np.float32]
    """(K, 2): mean rating over annotators, 1..4, instruction following then visual quality."""
    confidence: NDArray[np.float32]
    """(K, K): share of annotators who agree with a pair's order, 0..1; 0 where there is no pair."""

    def oracle(self) -> Oracle | None:
        """The oracle's scores of the K candidates, or None where no right result is known."""
        if self.target is None:
            return None
        shape = self.edits.shape
        return oracle(np.broadcast_to(self.source, shape), np.broadcast_to(self.target, shape), self.edits)


def read_groups(dataset: Path, split: str, side: int) -> list[Group]:
    """The groups of one split (`train`, `validation`, `test`) of a dataset folder, pictures scaled to `side` pixels."""
    rows = parquet.read_table(dataset / f"candidates-{split}.parquet").to_pylist()
    pairs = parquet.read_table(dataset / f"pairs-{split}.parquet").to_pylist()
    by_task: dict[str, list[dict[str, object]]] = {}
    for row in rows:
        by_task.setdefault(str(row["task_id"]), []).append(row)
    agreed: dict[tuple[str, str, str], float] = {(p["task_id"], p["a"], p["b"]): p["confidence"] for p in pairs}
    groups = []
    for task, members in by_task.items():
        ids = tuple(str(row["candidate_id"]) for row in members)
        confidence = np.zeros((len(ids), len(ids)), np.float32)
        for i, one in enumerate(ids):
            for j, other in enumerate(ids):
                confidence[i, j] = agreed.get((task, one, other), agreed.get((task, other, one), 0.0))
        first = members[0]
        groups.append(
            Group(
                task_id=task,
                task_type=str(first["task_type"]),
                instruction=str(first["instruction"]),
                candidates=ids,
                editors=tuple(str(row["editor"]) for row in members),
                source=_pixels(first["source"], side),
                target=_pixels(first["target"], side) if first["target"] is not None else None,
                edits=np.stack([_pixels(row["image"], side) for row in members]),
                ratings=np.array([[row["if_mean"], row["vq_mean"]] for row in members], np.float32),
                confidence=confidence,
            )
        )
    return groups


def _pixels(png: object, side: int) -> NDArray[np.uint8]:
    assert isinstance(png, bytes)
    return shrink(Image.open(io.BytesIO(png)), side)

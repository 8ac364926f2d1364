"""Preference groups in memory: all candidates of a task, with the experts' ratings, ready for a reward model."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image

from annotation.simulation.oracle import Oracle, oracle, shrink
from annotation.vocabulary import AXES


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
    weights: NDArray[np.float32]
    """(K, K, 2): how much each pair counts on each axis, 0..1, symmetric; 0 where there is no pair or no order."""

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
    weight_of = {(str(pair["task_id"]), frozenset((pair["a"], pair["b"]))): _weight(pair) for pair in pairs}
    groups = []
    for task, members in by_task.items():
        ids = tuple(str(row["candidate_id"]) for row in members)
        nothing = np.zeros(len(AXES), np.float32)
        weights = np.array(
            [[weight_of.get((task, frozenset((one, other))), nothing) for other in ids] for one in ids], np.float32
        )
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
                weights=weights,
            )
        )
    return groups


def _weight(pair: dict[str, Any]) -> NDArray[np.float32]:
    """2 confidence - 1 an axis, at least 0: how much likelier than a coin the order is. A tie orders nothing."""
    return np.array(
        [max(0.0, 2 * pair[f"{axis}_confidence"] - 1) if pair[f"{axis}_order"] else 0.0 for axis in AXES], np.float32
    )


def _pixels(png: object, side: int) -> NDArray[np.uint8]:
    assert isinstance(png, bytes)
    return shrink(Image.open(io.BytesIO(png)), side)

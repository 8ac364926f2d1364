"""A dataset of preferences with pairs of every kind, without a campaign: pictures of one colour, orders as given."""

import io
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from editloop.content import complete_folder
from editloop.datasets.shards import ShardWriter

ORDERS = {("a", "b"): 1, ("a", "c"): 0, ("b", "c"): -1}
"""Overall order of each pair of a task's edits: a over b, a and c tie, c over b."""
CONFIDENCES = {("a", "b"): 0.9, ("a", "c"): 0.6, ("b", "c"): 0.7}
RATINGS = {"a": 3.0, "b": 1.0, "c": 3.0}


def write_pairs(
    folder: Path,
    *,
    tasks: int = 3,
    shapes: Sequence[tuple[int, int]] = ((32, 32),),
    orders: Mapping[tuple[str, str], int] = ORDERS,
    references: Sequence[np.ndarray] = (),
) -> Path:
    """Write so many tasks of each split, with three edits; their (height, width) are those of `shapes` in turn.

    Every task has the reference images.
    """
    rng = np.random.default_rng(0)
    with complete_folder(folder, {"judgements_sha256": "0" * 64}) as out:
        for split in ("train", "validation", "test"):
            with closing(ShardWriter(out, split, 1, references=bool(references))) as writer:
                for number in range(tasks):
                    shape = shapes[number % len(shapes)]
                    shared = {"task_id": f"{split}-{number}", "name": "", "task_type": "add", "split": split}
                    shared |= {
                        "instruction": 'make the circle "red"',
                        "source": _png(rng, shape),
                        "target": None,
                        "editor": "e",
                    }
                    if references:
                        shared["references"] = [_encoded(reference) for reference in references]
                    rows = [
                        shared
                        | {"candidate_id": name, "image": _png(rng, shape)}
                        | {"if_mean": rating, "vq_mean": 2.0, "ratings": 1}
                        for name, rating in RATINGS.items()
                    ]
                    pairs = [
                        {"task_id": f"{split}-{number}", "a": a, "b": b, "confidence": CONFIDENCES[a, b]}
                        | dict.fromkeys(("overall_order", "if_order", "vq_order"), order)
                        | dict.fromkeys(("if_margin", "vq_margin", "if_confidence", "vq_confidence"), 0.5)
                        for (a, b), order in orders.items()
                    ]
                    writer.add(rows, pairs)
    return folder


def _png(rng: np.random.Generator, shape: tuple[int, int]) -> bytes:
    colour = rng.integers(0, 256, (1, 1, 3), dtype=np.uint8)
    return _encoded(np.tile(colour, (*shape, 1)))


def _encoded(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()

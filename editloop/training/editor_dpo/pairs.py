"""Pairs of edits that experts ordered, from a dataset folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet

from editloop.datasets.shards import shards
from editloop.datasets.splits import Split
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor
from editloop.models.editors.settings import Size

COLUMNS = ["task_id", "a", "b", "overall_order", "confidence"]
MOST_ENLARGED = 2.0
"""Largest factor by which an edit's number of pixels may grow to the size that the editor works at. Enlarged further,
it would teach the blur of its enlargement."""


class OrderedPair(NamedTuple):
    """Two edits of a task in the experts' order. The ids are those of the dataset."""

    split: Split
    task: str
    preferred: str
    rejected: str


class PairCounts(NamedTuple):
    """Numbers of a split's pairs."""

    ordered: int
    """Pairs to learn from."""
    ties: int
    """Pairs without an order over both axes."""
    uncertain: int
    """Ordered pairs whose order is less certain than asked for."""


def read_ordered_pairs(
    dataset: Path, split: Split, least_confidence: float = 0.5
) -> tuple[list[OrderedPair], PairCounts]:
    """Return the pairs of a split that have an order over both axes, and how many were left out. Reads no images.

    Args:
        dataset: The dataset folder.
        split: The split.
        least_confidence: Lowest probability of a pair's order, 0..1.

    Returns:
        The pairs in the dataset's order, and the counts.

    Raises:
        EditLoopError: The folder has no shards of the split, or broken ones.
    """
    pairs: list[OrderedPair] = []
    ties = uncertain = 0
    for path in shards(dataset, "pairs", split):
        for row in parquet.read_table(path, columns=COLUMNS).to_pylist():
            if row["overall_order"] == 0:
                ties += 1
            elif row["confidence"] < least_confidence:
                uncertain += 1
            else:
                order = (row["a"], row["b"]) if row["overall_order"] > 0 else (row["b"], row["a"])
                pairs.append(OrderedPair(split, row["task_id"], *order))
    return pairs, PairCounts(len(pairs), ties, uncertain)


def sample_pairs(pairs: Sequence[OrderedPair], most: int) -> list[OrderedPair]:
    """Return at most so many pairs, in their order: always the same ones.

    Args:
        pairs: The pairs.
        most: Largest number of pairs.
    """
    chosen = np.random.default_rng(0).permutation(len(pairs))[:most]
    return [pairs[index] for index in sorted(chosen)]


def check_pairs(dataset: Path, counts: dict[Split, PairCounts]) -> None:
    """Check that there is something to learn from and to choose the best state by.

    Args:
        dataset: The dataset folder, for the message.
        counts: Numbers of the pairs of each split that the training reads.

    Raises:
        EditLoopError: A split has no ordered pair.
    """
    for split, count in counts.items():
        if not count.ordered:
            raise EditLoopError(
                f"{dataset}: split {split} has no ordered pair ({count.ties} ties, {count.uncertain} less certain than "
                "least_confidence). Collect more judgements, or lower least_confidence."
            )


def working_size(editor: Editor, task: str, source: Size, edits: Sequence[Size], area: int | None) -> Size:
    """Return the (height, width) at which the editor learns a task's edits.

    Args:
        editor: The editor.
        task: The task's id.
        source: (height, width) of its source in pixels.
        edits: (height, width) of those of its edits that are learnt.
        area: As in `Editor.size_for`.

    Raises:
        EditLoopError: An edit is much smaller than that.
    """
    size = editor.size_for(*source, area)
    for height, width in edits:
        if MOST_ENLARGED * height * width < size[0] * size[1]:
            raise EditLoopError(
                f"task {task}: its edits have {width}x{height} pixels, and this editor works at "
                f"{size[1]}x{size[0]}: enlarged more than {MOST_ENLARGED:g} times, they would teach blur. Set `area` "
                f"of the preset to about {height * width}, or train the editor that made them."
            )
    return size

"""What a suite asks, in whatever format it came: sources, instructions, edits, and what people said of them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from editloop.data.picture_file import read_picture
from editloop.models.judge_protocol import Picture

Label = Literal["left", "right", "both_bad", "tie"]
LABELS: tuple[Label, ...] = get_args(Label)

AxisName = Literal["prompt_following", "consistency", "overall"]
AXIS_NAMES: tuple[AxisName, ...] = get_args(AxisName)

Counting = Literal["strict", "ties", "groups", "correlation"]
"""What the suite's publication counts. strict: people's ties are no units and a judge's tie is wrong. ties: two edits
that are told apart or not. groups: an item is right if all its comparisons are. correlation: Spearman with ratings."""

ALL = "all"
"""The slice of items whose suite has no kinds of task."""


@dataclass(frozen=True)
class PictureRef:
    """An encoded picture where it lies; its bytes are read each time they are asked for."""

    name: str
    """For messages: the file, or the table's row and column."""
    sha256: str
    """Of the bytes."""
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Comparison:
    """Two edits of an item, by their places among its candidates, and what people said of them."""

    key: str
    left: int
    right: int
    label: Label


@dataclass(frozen=True)
class Item:
    """One source, one instruction, K edits."""

    key: str
    cluster: str
    """Items of one cluster (one source picture) are not independent of each other."""
    slice: str
    """Kind of task, or ALL."""
    instruction: str
    candidates: tuple[str, ...]
    """K names, by which files of scores call the edits: `left`, `right` for pairs, `A`.. for groups, else models."""
    comparisons: tuple[Comparison, ...] = ()
    ratings: NDArray[np.float64] | None = None
    """(raters, K): each person's rating of each edit, NaN where there is none; None where people only compared."""
    raters: tuple[str, ...] = ()
    axis: AxisName = "overall"
    source: PictureRef | None = None
    """None in a suite without images."""
    edits: tuple[PictureRef, ...] = ()
    """K pictures, or none in a suite without images."""

    def pictures(self) -> tuple[PictureRef, ...]:
        """Source and edits; empty without images."""
        return (self.source, *self.edits) if self.source else ()


@dataclass(frozen=True)
class Suite:
    """A benchmark's items."""

    name: str
    counting: Counting
    sha256: str
    """Of all that is asked and labelled; pictures by their bytes."""
    items: tuple[Item, ...]
    four_words: bool = False
    """Whether people could say `both_bad` as well as `tie`."""
    mean_over_slices: bool = False
    """Whether the published figure is the unweighted mean over the slices, and not over the units."""

    @property
    def has_images(self) -> bool:
        return bool(self.items) and self.items[0].source is not None


def decode_picture(picture: PictureRef) -> Picture:
    """(height, width, 3) uint8. EditLoopError for a broken picture."""
    return np.asarray(read_picture(picture.read(), picture.name))

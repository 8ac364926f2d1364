"""Data model of benchmark suites: sources, instructions, edits and human labels, independent of the file format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from editloop.data.picture_file import read_picture
from editloop.models.judge_protocol import Picture

Label = Literal["left", "right", "both_bad", "tie"]
LABELS: tuple[Label, ...] = get_args(Label)
REVERSE = "|reverse"
"""End of the key of a comparison that shows another one's edits the other way round."""

AxisName = Literal["prompt_following", "consistency", "quality", "overall"]
AXIS_NAMES: tuple[AxisName, ...] = get_args(AxisName)

Counting = Literal["strict", "ties", "groups", "correlation"]
"""How the suite's publication counts.

strict: pairs that people call a tie do not count, and a judge's tie is wrong. ties: accuracy with ties; a tie of both
people and judge is right. groups: an item is right if all its comparisons are. correlation: Spearman's correlation with
people's ratings."""

ALL = "all"
"""The slice of items in a suite without task types."""


@dataclass(frozen=True)
class PictureRef:
    """A reference to an encoded image in the suite's files. Its bytes are read anew on each call of `read`."""

    name: str
    """Name in messages: the file, or the row and column of the table."""
    identity: Callable[[], str]
    """Returns the identity of its pixels, see `editloop.data.picture_file`; waits until it has been decoded."""
    read: Callable[[], bytes]

    @property
    def sha256(self) -> str:
        """Identity of its pixels, whatever file they came in; empty if it is broken."""
        return self.identity()


@dataclass(frozen=True)
class Comparison:
    """Two edits of an item, as indices into its candidates, with the human label."""

    key: str
    left: int
    right: int
    label: Label


@dataclass(frozen=True)
class Item:
    """One source, one instruction and the K edits made for them."""

    key: str
    cluster: str | PictureRef
    """Items of one cluster are dependent, and are resampled together. A source image stands for its identity."""
    slice: str
    """Task type, or ALL."""
    instruction: str
    candidates: tuple[str, ...]
    """K names of the edits, as score files use them: `left` and `right` for pairs, `A`, `B`, ... for groups, else the
    editors' names."""
    comparisons: tuple[Comparison, ...] = ()
    ratings: NDArray[np.float64] | None = None
    """(raters, K): each rater's rating of each edit, NaN where there is none. None if people only compared edits."""
    raters: tuple[str, ...] = ()
    axis: AxisName = "overall"
    source: PictureRef | None = None
    """The source image; None in a suite without images."""
    edits: tuple[PictureRef, ...] = ()
    """K images; empty in a suite without images."""
    edits_at_source_size: bool = False
    """Whether a judge sees the edits at the size of the source, as the suite's publication shows them."""
    further: tuple[PictureRef, ...] = ()
    """Images that no judge is shown, such as the second picture of an edit. A judge is not asked about such an item;
    verdicts and saved scores may be there."""
    references: tuple[PictureRef, ...] = ()
    """Further images of which the instruction speaks, besides the source. A judge that reads one source is not asked
    about such an item."""

    @property
    def cluster_name(self) -> str:
        """Name of the cluster: equal for items of one cluster."""
        return self.cluster.sha256 if isinstance(self.cluster, PictureRef) else self.cluster

    def pictures(self) -> tuple[PictureRef, ...]:
        """Return the source, the edits, the references and the further images; empty in a suite without images."""
        return (self.source, *self.edits, *self.references, *self.further) if self.source else ()


def pair_item(
    key: str,
    label: Label,
    instruction: str,
    pictures: Sequence[PictureRef] = (),
    slice: str = ALL,
    axis: AxisName = "overall",
) -> Item:
    """Return the item of one pair, whose candidates are `left` and `right`.

    Args:
        key: Key of the item and of its comparison.
        label: The human label.
        instruction: The instruction.
        pictures: Source, left and right edit; none in a suite without images, where each item is a cluster.
        slice: Task type.
        axis: The axis that people compared.
    """
    return Item(
        key=key,
        cluster=pictures[0] if pictures else key,
        slice=slice,
        instruction=instruction,
        candidates=("left", "right"),
        comparisons=(Comparison(key, 0, 1, label),),
        axis=axis,
        source=pictures[0] if pictures else None,
        edits=tuple(pictures[1:]),
    )


@dataclass(frozen=True)
class Suite:
    """A benchmark: its items and how they are counted."""

    name: str
    counting: Counting
    sha256: str
    """Content address of all items with their labels; images enter by their identity."""
    items: tuple[Item, ...]
    four_words: bool = False
    """Whether people could choose `both_bad` as well as `tie`."""
    mean_over_slices: bool = False
    """Whether the published figure is the unweighted mean over slices, instead of the mean over units."""
    tie_below: float | None = None
    """The tie threshold of the publication: where people call a tie, scores that differ by less are one, and where
    people prefer an edit only equal scores are. None: with ties, the threshold that is best on the suite."""
    exact_axes: bool = False
    """Whether a judge answers on an axis only by a score of that very axis; pairs on its other axes are left out."""
    both_orders: bool = False
    """Whether verdicts are asked for in both orders of the edits. Each comparison then has a second one, the other way
    round, whose key ends in `REVERSE`, and as published the accuracy is over the answers that were given."""

    @property
    def has_images(self) -> bool:
        """Whether the suite has images, so that a judge can score it."""
        return bool(self.items) and self.items[0].source is not None


def decode_picture(picture: PictureRef) -> Picture:
    """Decode an image.

    Args:
        picture: The image.

    Returns:
        uint8 (height, width, 3).

    Raises:
        EditLoopError: The image is broken, too large, too small, or in another format.
    """
    return np.asarray(read_picture(picture.read(), picture.name))

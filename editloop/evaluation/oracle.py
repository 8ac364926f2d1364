"""The oracle: it scores an edit on both axes by pixel error against the known right result.

It stands in for a perfectly informed expert. It needs a target image, so it applies to drawn scenes and to photographs
whose real edit is at hand, and to nothing else; models never see it.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from editloop.data.picture_size import resized, shrink
from editloop.datasets.preference_groups import PreferenceGroup

BLUR = 0.8
"""Standard deviation, in pixels, of the blur before errors are measured: it forgives a codec's sub-pixel softness."""
MASK_THRESHOLD = 0.08
"""A pixel belongs to the edit if source and target differ there by more than this (0..1, largest channel)."""
TOLERATED_OUTSIDE = 0.12
"""Root mean square error outside the edit at which visual quality reaches 0."""
RIGHT_INSTRUCTION, RIGHT_QUALITY = 0.6, 0.6
"""Lowest scores on the two axes of an edit that counts as right."""
LARGEST_SIDE = 64
"""Largest side, in pixels, of the square at which a task's images are compared."""

Images = NDArray[np.uint8]


class Oracle(NamedTuple):
    """Scores on both axes, each an array of the batch's shape, 0 (worst) to 1 (best)."""

    instruction_following: NDArray[np.float64]
    visual_quality: NDArray[np.float64]

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of the two axes, 0..1: the oracle's overall score."""
        return (self.instruction_following + self.visual_quality) / 2

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the edit is done and everything else is unchanged: both axes reach their thresholds."""
        return (self.instruction_following >= RIGHT_INSTRUCTION) & (self.visual_quality >= RIGHT_QUALITY)


def oracle(source: Images, target: Images, edit: Images) -> Oracle:
    """Score edits against the right result.

    Instruction following is 1 - error / (error of the unedited source), inside the edit's mask. Visual quality is 1 -
    error / TOLERATED_OUTSIDE, outside of it. Errors are root mean squares after a slight blur, and both scores are
    clipped to 0..1. Where source and target do not differ anywhere, the mask is the whole image, and a faithful copy
    follows the instruction with 1.

    Args:
        source: The source images, uint8 (..., H, W, 3).
        target: The right results, of the same shape.
        edit: The edits to score, of the same shape.

    Returns:
        The scores, (...) on each axis.

    Raises:
        ValueError: The shapes differ.
    """
    if not source.shape == target.shape == edit.shape:
        raise ValueError(f"source {source.shape}, target {target.shape} and edit {edit.shape} must have one shape")
    before, expected, actual = (_blurred(images) for images in (source, target, edit))
    mask = _differs(before, expected)
    unchanged = ~mask.any(axis=(-3, -2, -1), keepdims=True)
    mask = mask | unchanged
    wrong_inside = _root_mean_square(actual - expected, mask)
    to_do = np.maximum(_root_mean_square(before - expected, mask), MASK_THRESHOLD / 2)
    wrong_outside = _root_mean_square(actual - expected, ~mask)
    return Oracle(
        instruction_following=np.clip(1 - wrong_inside / to_do, 0, 1),
        visual_quality=np.clip(1 - wrong_outside / TOLERATED_OUTSIDE, 0, 1),
    )


def oracle_of_task(
    source: Image.Image | Images, target: Image.Image | Images, edits: Iterable[Image.Image | Images]
) -> Oracle:
    """Score a task's edits, images of any sizes; each gets the score that it would get alone.

    All images are compared at the size of `shrink(source, LARGEST_SIDE)`.

    Args:
        source: The source image.
        target: The right result.
        edits: K edits, at least one; each is read once.

    Returns:
        The scores, (K,) on each axis.
    """
    reference = shrink(source, LARGEST_SIDE)
    size = (reference.shape[0], reference.shape[1])
    batch = np.stack([resized(edit, size) for edit in edits])
    before, expected = (np.broadcast_to(picture, batch.shape) for picture in (reference, resized(target, size)))
    return oracle(before, expected, batch)


def oracle_of_group(group: PreferenceGroup) -> Oracle | None:
    """Score the K candidates of a dataset's group.

    Args:
        group: The group.

    Returns:
        The scores, (K,) on each axis; None if the right result is not known.
    """
    return None if group.target is None else oracle_of_task(group.source, group.target, group.edits)


def edit_mask(source: Images, target: Images) -> NDArray[np.bool_]:
    """Return the pixels that the edit from source to target changes, (..., H, W).

    Args:
        source: The source images, uint8 (..., H, W, 3).
        target: The right results, of the same shape.
    """
    return _differs(_blurred(source), _blurred(target))[..., 0]


def _differs(before: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.bool_]:
    return np.asarray(np.abs(before - expected).max(axis=-1, keepdims=True) > MASK_THRESHOLD)


def _blurred(images: Images) -> NDArray[np.float32]:
    sigma = (0,) * (images.ndim - 3) + (BLUR, BLUR, 0)
    return np.asarray(gaussian_filter(images.astype(np.float32) / 255, sigma), dtype=np.float32)


def _root_mean_square(error: NDArray[np.float32], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    pixels = np.maximum(mask.sum(axis=(-3, -2, -1)), 1) * error.shape[-1]
    return np.asarray(np.sqrt((np.square(error) * mask).sum(axis=(-3, -2, -1)) / pixels), dtype=np.float64)

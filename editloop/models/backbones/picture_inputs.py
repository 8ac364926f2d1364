"""Inputs of a Qwen vision tower: images scaled to a budget of pixels, cut into patches and identified by a digest.

Patches stay bytes, and an image that fills all frames is there once, until they are on the model's device: an eighth of
what the vision tower reads.

Scaling and the order and values of the patches are those of Qwen's image processor (Qwen2VLImageProcessorPil). That
processor cannot put two images into the two frames of one patch; this module can.
"""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editloop.data.picture_file import MAX_ASPECT_RATIO
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Picture


class Patching(NamedTuple):
    """How a model's images are scaled, normalised and cut."""

    patch: int
    """Pixels a side of a patch."""
    merge: int
    """Patches a side that become one token of the language model."""
    min_pixels: int
    max_pixels: int
    """Pixels of an image after scaling, `min_pixels` to `max_pixels`. Sides are rounded to whole tokens."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Mean and standard deviation of each channel, on 0..1."""
    frames: int = 2
    """Frames that a patch spans. A still image fills them all."""


def patching_of(config: Any, settings: Any) -> Patching:
    """Return how the images of a model are prepared.

    Args:
        config: Configuration of a Qwen2.5-VL or Qwen3-VL model.
        settings: Settings with `min_pixels`, `max_pixels`, `image_mean` and `image_std`.
    """
    vision, scale = config.vision_config, (settings.min_pixels, settings.max_pixels)
    normalisation = (settings.image_mean, settings.image_std)
    return Patching(vision.patch_size, vision.spatial_merge_size, *scale, *normalisation, vision.temporal_patch_size)


class Patches(NamedTuple):
    """An image, ready for the vision tower."""

    values: Tensor
    """uint8 (rows * columns, 3, shown, patch, patch). The patches of one token are adjacent, as in Qwen's order.
    `shown` is 1 where an image fills all frames of a patch, else the number of frames."""
    scale: Tensor
    """(2, 3): mean and standard deviation of each channel, on 0..255."""
    grid: tuple[int, int, int]
    """(1, rows, columns), in patches."""
    digest: bytes
    """Equal for equal images, which go through the vision tower once."""

    def tokens(self, merge: int) -> int:
        """Return the number of language-model tokens of the image.

        Args:
            merge: Patches a side of a token.
        """
        return self.grid[1] * self.grid[2] // merge**2


def check_picture(picture: Picture, name: str = "picture") -> None:
    """Check that an array is an image that a model can read.

    Args:
        picture: The array to check.
        name: What messages call the image.

    Raises:
        EditLoopError: The array is not uint8 (height, width, 3), is empty, or exceeds MAX_ASPECT_RATIO.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise EditLoopError(
            f"{name}: an array of {picture.dtype} {picture.shape}; a picture is uint8 (height, width, 3), RGB."
        )
    height, width = picture.shape[:2]
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise EditLoopError(
            f"{name}: {width} x {height} pixels; the longer side may be {MAX_ASPECT_RATIO} times the shorter."
        )


def scaled_size(height: int, width: int, patching: Patching) -> tuple[int, int]:
    """Return the (height, width) of an image after scaling, by Qwen's rule.

    Both are multiples of `patch * merge` within the budget, and nearly keep the aspect ratio. Both are at least one
    token's side, so a budget below that is exceeded.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        patching: The budget, and the sizes of patches and tokens.
    """
    unit = patching.patch * patching.merge
    rows, columns = max(unit, round(height / unit) * unit), max(unit, round(width / unit) * unit)
    if rows * columns > patching.max_pixels:
        shrink = math.sqrt(height * width / patching.max_pixels)
        rows, columns = (max(unit, math.floor(side / shrink / unit) * unit) for side in (height, width))
    elif rows * columns < patching.min_pixels:
        grow = math.sqrt(patching.min_pixels / (height * width))
        rows, columns = (math.ceil(side * grow / unit) * unit for side in (height, width))
    return rows, columns


def scaled_picture(picture: Picture, size: tuple[int, int]) -> Picture:
    """Return the picture at another size, as the backbones' processors scale it.

    Args:
        picture: uint8 (height, width, 3).
        size: (height, width) in pixels.

    Raises:
        EditLoopError: It is not a picture, or a side is too long.
    """
    check_picture(picture)
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC))


def patches_of(picture: Picture, patching: Patching) -> Patches:
    """Scale a still image and cut it into patches.

    Args:
        picture: The image, of any size.
        patching: How to scale and cut it.

    Raises:
        EditLoopError: The array is not an image that a model can read; see `check_picture`.
    """
    check_picture(picture)
    height, width = picture.shape[:2]
    return _cut([scaled_picture(picture, scaled_size(height, width, patching))] * patching.frames, patching)


def paired_patches(source: Picture, edit: Picture, patching: Patching) -> Patches:
    """Cut two images of one size as the two frames of one image, so that a patch holds the same region of both.

    Args:
        source: The first frame.
        edit: The second frame.
        patching: How to cut them. They are not scaled.

    Raises:
        EditLoopError: An array is not an image that a model can read, the sizes differ, or a side is not a multiple of
            `patch * merge`.
    """
    for picture in (source, edit):
        check_picture(picture)
    unit = patching.patch * patching.merge
    if source.shape != edit.shape or source.shape[0] % unit or source.shape[1] % unit:
        raise EditLoopError(
            f"source {source.shape[:2]}, edit {edit.shape[:2]}: pictures of a pair have one size, its sides multiples "
            f"of {unit}. Scale them first."
        )
    return _cut([source, edit], patching)


def _cut(frames: list[Picture], patching: Patching) -> Patches:
    pixels = np.stack(frames) if frames[0] is not frames[-1] else np.ascontiguousarray(frames[0])[None]
    digest = hashlib.blake2b(repr((pixels.shape, patching)).encode(), digest_size=16)
    digest.update(pixels.data)
    shown, height, width, channels = pixels.shape
    patch, merge = patching.patch, patching.merge
    rows, columns = height // patch, width // patch
    blocks = pixels.reshape(shown, rows // merge, merge, patch, columns // merge, merge, patch, channels)
    values = blocks.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(rows * columns, channels, shown, patch, patch)
    scale = torch.tensor([patching.mean, patching.std]) * 255
    return Patches(torch.from_numpy(values), scale, (1, rows, columns), digest.digest())


def normalised_patches(values: Tensor, scale: Tensor, frames: int) -> Tensor:
    """Return patches as the vision tower reads them, float32 (patches, 3 * frames * patch * patch).

    Args:
        values: As in Patches.
        scale: As in Patches, on the same device.
        frames: Frames that a patch spans.
    """
    mean, deviation = scale[:, :, None, None, None]
    normalised: Tensor = (values.float() - mean) / deviation
    return normalised.expand(-1, -1, frames, -1, -1).flatten(1)


class ImageFeatures(NamedTuple):
    """The distinct images of a batch, and which of them stands at each position."""

    pixel_values: Tensor
    """uint8 (patches, 3, shown, patch, patch): the patches of the distinct images, one image after the other."""
    pixel_scale: Tensor
    """(2, 3): mean and standard deviation of each channel, on 0..255."""
    image_grid_thw: Tensor
    """(distinct, 3): the grid of each distinct image."""
    image_of: Tensor
    """(positions,): for each position, the index of its image among the distinct ones."""


def distinct_pictures(pictures: list[Patches]) -> ImageFeatures:
    """Remove duplicates from the images of a batch.

    Args:
        pictures: The images in the order of their positions, at least one.
    """
    first: dict[bytes, Patches] = {}
    for picture in pictures:
        first.setdefault(picture.digest, picture)
    index = {digest: position for position, digest in enumerate(first)}
    shown = max(picture.values.shape[2] for picture in first.values())
    return ImageFeatures(
        torch.cat([picture.values.expand(-1, -1, shown, -1, -1) for picture in first.values()]),
        pictures[0].scale,
        torch.tensor([picture.grid for picture in first.values()]),
        torch.tensor([index[picture.digest] for picture in pictures]),
    )


def encode_pictures(backbone: Any, images: ImageFeatures) -> dict[str, Any]:
    """Run the distinct images through the vision tower once.

    Args:
        backbone: Qwen2_5_VLModel or Qwen3VLModel.
        images: The images, on the backbone's device.

    Returns:
        The features of the image at each position, as the backbone's `mm_encoder_outputs`.
    """
    frames = backbone.config.vision_config.temporal_patch_size
    pixels = normalised_patches(images.pixel_values, images.pixel_scale, frames)
    features = backbone.get_image_features(pixels, images.image_grid_thw, return_dict=True)
    indices = images.image_of.tolist()
    features.pooler_output = [features.pooler_output[index] for index in indices]
    if getattr(features, "deepstack_features", None) is not None:
        features.deepstack_features = [[layer[index] for index in indices] for layer in features.deepstack_features]
    return {"image": features}

"""Pictures as a Qwen vision tower reads them: scaled to a budget of pixels, cut into patches, each given a digest.

Scaling, order and values of the patches are those of Qwen's image processor (Qwen2VLImageProcessorPil), which cannot
put two pictures into the two frames of one patch.
"""

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Picture

MAX_ASPECT_RATIO = 200
"""Longer side over shorter side, at most: Qwen's own limit."""


class Patching(NamedTuple):
    """How a model's pictures are cut."""

    patch: int
    """Pixels a side of a patch."""
    merge: int
    """Patches a side that become one token of the language model."""
    min_pixels: int
    max_pixels: int
    """Budget of a picture after scaling; it keeps its aspect within half a token's side."""
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    """Of each channel, on 0..1."""
    frames: int = 2
    """Frames a patch spans; a still picture fills them all."""


class Patches(NamedTuple):
    """A picture, ready for the vision tower."""

    values: Tensor
    """(grid rows * grid columns, 3 * frames * patch * patch), float32, merged blocks together as Qwen orders them."""
    grid: tuple[int, int, int]
    """(1, rows, columns) of patches."""
    digest: bytes
    """Equal pictures have equal ones: they go through the vision tower once."""

    def tokens(self, merge: int) -> int:
        """Tokens of the language model that it takes."""
        return self.grid[1] * self.grid[2] // merge**2


def picture_from_bytes(data: bytes, name: str = "picture") -> Picture:
    """The picture that an encoded file (PNG, JPEG, WebP) holds: RGB, upright, transparency on white, of an animated
    one the first frame.

    EditLoopError for anything else: other formats, truncated files, too many or too few pixels, sides over 1:200.
    """
    picture = np.asarray(read_picture(data, name))
    check_picture(picture, name)
    return picture


def check_picture(picture: Picture, name: str = "picture") -> None:
    """EditLoopError for an array that is no picture a model can read."""
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
    """(height, width) after scaling: multiples of patch * merge, within the budget, the aspect kept as near as can be.

    The rule is Qwen's. Both sides are at least one token's, so that a budget below that is exceeded.
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


def patches_of(picture: Picture, patching: Patching) -> Patches:
    """A still picture of any size, scaled and cut."""
    check_picture(picture)
    height, width = picture.shape[:2]
    rows, columns = scaled_size(height, width, patching)
    if picture.shape[:2] != (rows, columns):
        picture = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.Resampling.BICUBIC))
    return _cut([picture] * patching.frames, patching)


def paired_patches(source: Picture, edit: Picture, patching: Patching) -> Patches:
    """Two pictures of one size as the two frames of one: a patch then holds the same place of both.

    Their sides must be multiples of patch * merge already.
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
    pixels = np.stack(frames) if frames[0] is not frames[-1] else frames[0][None]
    digest = hashlib.blake2b(repr((pixels.shape, patching)).encode() + pixels.tobytes(), digest_size=16).digest()
    scale = torch.tensor(patching.std) * 255
    values = (torch.from_numpy(pixels.copy()).float() - torch.tensor(patching.mean) * 255) / scale
    count, height, width, channels = values.shape
    rows, columns = height // patching.patch, width // patching.patch
    blocks = values.reshape(
        count,
        rows // patching.merge,
        patching.merge,
        patching.patch,
        columns // patching.merge,
        patching.merge,
        patching.patch,
        channels,
    ).permute(1, 4, 2, 5, 7, 0, 3, 6)
    blocks = blocks.expand(*blocks.shape[:5], patching.frames, *blocks.shape[6:])
    return Patches(blocks.reshape(rows * columns, -1), (1, rows, columns), digest)


class ImageFeatures(NamedTuple):
    """Distinct pictures of a batch, and which of them each place shows."""

    pixel_values: Tensor
    """(patches, 3 * frames * patch * patch) of the distinct pictures, one after the other."""
    image_grid_thw: Tensor
    """(distinct, 3)"""
    image_of: Tensor
    """(places,): index of the distinct picture."""


def distinct_pictures(pictures: list[Patches]) -> ImageFeatures:
    """Pictures in the order of their places, equal ones once."""
    first: dict[bytes, Patches] = {}
    for picture in pictures:
        first.setdefault(picture.digest, picture)
    index = {digest: position for position, digest in enumerate(first)}
    return ImageFeatures(
        torch.cat([picture.values for picture in first.values()]),
        torch.tensor([picture.grid for picture in first.values()]),
        torch.tensor([index[picture.digest] for picture in pictures]),
    )


def encode_pictures(backbone: Any, pixel_values: Tensor, image_grid_thw: Tensor, image_of: Tensor) -> dict[str, Any]:
    """One pass of the distinct pictures through the vision tower, as the backbone's `mm_encoder_outputs`.

    backbone: Qwen2_5_VLModel or Qwen3VLModel. The arguments are those of ImageFeatures.
    """
    features = backbone.get_image_features(pixel_values, image_grid_thw, return_dict=True)
    indices = image_of.tolist()
    features.pooler_output = [features.pooler_output[index] for index in indices]
    if getattr(features, "deepstack_features", None) is not None:
        features.deepstack_features = [[layer[index] for index in indices] for layer in features.deepstack_features]
    return {"image": features}

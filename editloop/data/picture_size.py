"""The rules by which images are brought to a common size: one for comparison, one for what an editor works on.

An edit may differ in size and shape from its source, and from the other edits of its task. Wherever pixels are
compared, `resized` brings each image to the size of the reference, which is the source. Wherever a model reads images
or people look at them, each image keeps its own size, but for a suite whose publication shows edits otherwise.

An editor reads its source as the published pipelines read theirs, by `resampled`. So is the target read that it is
trained on or compared with, for otherwise what no edit changes would differ.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""RGB pixels, (height, width, 3)."""


def resized(picture: Image.Image | Picture, size: tuple[int, int]) -> Picture:
    """Return the RGB pixels of an image at another size. The aspect ratio is not kept.

    Fewer pixels are area-averaged, more pixels are interpolated by Lanczos. An image of that size stays as it is.

    Args:
        picture: A Pillow image, or uint8 (height, width, 3).
        size: (height, width) in pixels.

    Returns:
        RGB pixels, (height, width, 3).
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    shrinks = image.width * image.height > size[0] * size[1]
    return _at_size(image, size, Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS)


def resampled(picture: Image.Image | Picture, size: tuple[int, int]) -> Picture:
    """Return the RGB pixels of an image at the size that an editor works at. The aspect ratio is not kept.

    It is interpolated by Lanczos, as in the pipelines of OmniGen2 and of diffusers. An image of that size stays as it
    is.

    Args:
        picture: A Pillow image, or uint8 (height, width, 3).
        size: (height, width) in pixels.

    Returns:
        RGB pixels, (height, width, 3).
    """
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    return _at_size(image, size, Image.Resampling.LANCZOS)


def _at_size(image: Image.Image, size: tuple[int, int], filter_: Image.Resampling) -> Picture:
    image = image.convert("RGB")
    height, width = size
    return np.asarray(image if image.size == (width, height) else image.resize((width, height), filter_))


def shrink(picture: Image.Image | Picture, side: int) -> Picture:
    """Return the RGB pixels of an image as a square. A square image of at most `side` pixels keeps its size.

    Args:
        picture: A Pillow image, or uint8 (height, width, 3).
        side: Side of the square in pixels.

    Returns:
        RGB pixels, (side, side, 3) or smaller.
    """
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    smaller = width == height and width <= side
    return resized(picture, (height, width) if smaller else (side, side))

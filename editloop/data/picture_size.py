"""One size for pictures that are compared.

An edit may differ in size and in shape from its source, and from the other edits of its task. One rule holds
everywhere: where pixels are compared, each picture is brought to the size of the reference, the source, by `resized`;
where a model reads pictures or people look at them, each keeps its own size.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
"""(height, width, 3), RGB."""


def resized(picture: Image.Image | Picture, size: tuple[int, int]) -> Picture:
    """RGB pixels of a picture at another size; its shape is not kept.

    Area-averaged where it gets fewer pixels, Lanczos where it gets more; a picture that has the size stays as it is.

    Args:
        picture: An image of Pillow, or uint8 (height, width, 3).
        size: (height, width) in pixels.
    """
    image = (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")
    height, width = size
    if image.size != (width, height):
        shrinks = image.width * image.height > width * height
        image = image.resize((width, height), Image.Resampling.BOX if shrinks else Image.Resampling.LANCZOS)
    return np.asarray(image)


def shrink(picture: Image.Image | Picture, side: int) -> Picture:
    """RGB pixels of a picture as a square of `side` pixels; a smaller square one keeps its size."""
    width, height = picture.size if isinstance(picture, Image.Image) else picture.shape[1::-1]
    smaller = width == height and width <= side
    return resized(picture, (height, width) if smaller else (side, side))

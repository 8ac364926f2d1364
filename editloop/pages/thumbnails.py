"""Small copies of pictures, as addresses that a page embeds."""

import base64
import io
from typing import NamedTuple

from PIL import Image


class Thumbnail(NamedTuple):
    """A picture that a page embeds."""

    address: str
    """`data:` address."""
    small: bool
    """Whether the picture itself is no larger than the thumbnail, so that it is enlarged without smoothing."""


def thumbnail(image: Image.Image, side: int) -> Thumbnail:
    """Return a picture as a thumbnail.

    Args:
        image: The picture.
        side: Its longest side, in pixels, at most.
    """
    small = max(image.size) <= side
    scaled = image.copy()
    scaled.thumbnail((side, side))
    buffer = io.BytesIO()
    scaled.save(buffer, "WEBP", lossless=small, quality=80)
    return Thumbnail(f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}", small)

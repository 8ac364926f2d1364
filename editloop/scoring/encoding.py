"""Pictures on their way to a judge elsewhere."""

import io

from PIL import Image

from editloop.models.judge_protocol import Picture


def encode_png(picture: Picture) -> bytes:
    """The picture as a PNG file, which loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def limit_pixels(picture: Picture, pixels: int) -> Image.Image:
    """The picture with at most so many pixels, its proportions kept; never enlarged."""
    image = Image.fromarray(picture)
    share = (pixels / (image.width * image.height)) ** 0.5
    if share >= 1:
        return image
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(size, Image.Resampling.BICUBIC)

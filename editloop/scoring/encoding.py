"""Encode images for a judge that is reached over HTTP."""

from PIL import Image

from editloop.data.picture_file import png_bytes
from editloop.models.judge_protocol import Picture


def encode_png(picture: Picture) -> bytes:
    """Encode an image losslessly as a PNG file.

    Args:
        picture: The image, uint8 (height, width, 3).

    Returns:
        The bytes of the file.
    """
    return png_bytes(Image.fromarray(picture), compress_level=1)


def limit_pixels(picture: Picture, pixels: int) -> Image.Image:
    """Scale an image down to at most `pixels` pixels, keeping its proportions; never enlarge it.

    Args:
        picture: The image, uint8 (height, width, 3).
        pixels: Largest number of pixels.

    Returns:
        The scaled image, or the image as it is where it is small enough.
    """
    image = Image.fromarray(picture)
    share = (pixels / (image.width * image.height)) ** 0.5
    if share >= 1:
        return image
    size = (max(1, int(image.width * share)), max(1, int(image.height * share)))
    return image.resize(size, Image.Resampling.BICUBIC)

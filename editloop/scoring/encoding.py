"""Size of the images for a judge that is reached over HTTP."""

from PIL import Image

from editloop.models.judge_protocol import Picture


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

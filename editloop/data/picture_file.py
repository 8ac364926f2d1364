"""Safe reader of image files from outside: PNG, JPEG and WebP, whose size is checked before they are decoded."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from editloop.content import sha256_bytes
from editloop.errors import EditLoopError

LARGEST_PICTURE = 50_000_000
"""Pixels. 50 million take 150 MB as RGB; editors' results are far smaller."""
SHORTEST_SIDE = 16
"""Pixels: one patch of a vision model. Nobody can judge a smaller image."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""The formats that are opened. Their decoders do nothing but decode."""

ORIENTATION, LYING = 0x0112, range(5, 9)
"""EXIF's tag for the orientation, and those of its values that swap height and width."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow's decoders raise on broken bytes."""


def load_image(path: Path, size: int | None = None) -> Image.Image:
    """Return the image of a file, as `read_picture` does, optionally scaled down.

    Args:
        path: The file.
        size: Longest side in pixels. A smaller image is not enlarged. None: keep the size.

    Raises:
        EditLoopError: The image is missing, broken, too large, too small, or in another format.
    """
    picture = _read(path, str(path))
    if size is not None:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def upright_size(path: Path) -> tuple[int, int]:
    """Return the size that `load_image` gives an image, from its header alone.

    Args:
        path: An image that `load_image` can read.

    Returns:
        (height, width) in pixels, with the EXIF orientation applied.
    """
    with Image.open(path, formats=FORMATS) as opened:
        lies = opened.getexif().get(ORIENTATION) in LYING
        return (opened.width, opened.height) if lies else (opened.height, opened.width)


def read_picture(data: bytes, name: str) -> Image.Image:
    """Decode an image to RGB, upright by its EXIF orientation, with transparency on white.

    An animation gives its first frame.

    Args:
        data: The encoded image.
        name: What messages call the image.

    Raises:
        EditLoopError: The image is broken, too large, too small, or in another format.
    """
    return _read(io.BytesIO(data), name)


def png_bytes(image: Image.Image, **options: int) -> bytes:
    """Return an image as the bytes of a PNG file.

    Args:
        image: The image.
        **options: Pillow's options of the format.
    """
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


def store_png(image: Image.Image, folder: Path) -> str:
    """Write an image as `<sha256>.png`, so that equal images are one file, and return the sha256.

    Args:
        image: The image.
        folder: The folder to write into; created where it is missing.
    """
    data = png_bytes(image)
    digest = sha256_bytes(data)
    folder.mkdir(exist_ok=True)
    (folder / f"{digest}.png").write_bytes(data)
    return digest


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where the message is empty.

    Args:
        error: The error.
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(file: Path | io.BytesIO, name: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as opened:
                _check_size(name, opened.width, opened.height)
                return _as_rgb(ImageOps.exif_transpose(opened))
    except FileNotFoundError:
        raise EditLoopError(f"{name}: no such file") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        match = re.search(r"\d+", str(error))
        pixels = f"{int(match[0]):,}" if match else "too many"
        raise EditLoopError(f"{name}: {pixels} pixels; at most {LARGEST_PICTURE:,} are read") from None
    except UNREADABLE as error:
        # Pillow's own message has a memory address, and one fault must always read the same
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise EditLoopError(f"{name}: not a readable PNG, JPEG or WebP picture ({reason})") from None


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > LARGEST_PICTURE:
        raise EditLoopError(f"{name}: {width:,} x {height:,} pixels; at most {LARGEST_PICTURE:,} pixels are read")
    if min(width, height) < SHORTEST_SIDE:
        raise EditLoopError(f"{name}: {width} x {height} pixels; each side needs at least {SHORTEST_SIDE}")


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips everything above 255 to white
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return picture.convert("RGB")

"""Picture files from outside, opened with care: PNG, JPEG and WebP, checked for size before they are decoded."""

import io
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from editloop.errors import EditLoopError

LARGEST_PICTURE = 50_000_000
"""Pixels. 50 million take 150 MB as RGB; whatever an editor makes is far below."""
SHORTEST_SIDE = 16
"""Pixels. One patch of a vision model; less is not a picture that anyone can judge."""
FORMATS = ("PNG", "JPEG", "WEBP")
"""What is opened at all: formats whose decoders do nothing but decode."""

ORIENTATION, LYING = 0x0112, 5
"""EXIF's tag for how a picture is turned, and the first of its values that exchange height and width."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
"""What Pillow's decoders raise on broken bytes."""


def load_image(path: Path, size: int | None = None) -> Image.Image:
    """The picture of a file, as `read_picture` gives it; with `size` no side is longer than that (pixels).

    It is never enlarged. Raises EditLoopError for a missing, broken, oversized or undersized picture.
    """
    picture = _read(path, str(path))
    if size is not None:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def upright_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels that `load_image` will give; nothing is decoded. The picture must be one that opens."""
    with Image.open(path, formats=FORMATS) as opened:
        lies = opened.getexif().get(ORIENTATION, 1) >= LYING
        return (opened.width, opened.height) if lies else (opened.height, opened.width)


def read_picture(data: bytes, name: str) -> Image.Image:
    """The picture that encoded bytes hold, as RGB, upright (EXIF), transparency laid on white; of an animated one the
    first frame.

    Raises EditLoopError, which calls it `name`, for a broken, oversized or undersized picture or another format.
    """
    return _read(io.BytesIO(data), name)


def first_line(error: BaseException) -> str:
    """An error's first line, or its type's name where it says nothing."""
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
        # Pillow says where in memory the bytes lay, and one fault must not be told in two ways
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

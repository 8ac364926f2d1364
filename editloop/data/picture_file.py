"""Safe reader of image files from outside, and the form in which the loop knows an image.

An image is decoded once, at the door: the first frame, upright by its EXIF orientation, in 8-bit sRGB (a colour profile
is applied, then dropped), transparency on white, without metadata. What models read and people look at is made from
that, so both see the same colours. `picture_sha256` of it is the image's identity, whatever file it came in.

PNG, JPEG, WebP and AVIF are read. Sizes are checked before anything is decoded.
"""

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from editloop.data.png_encoding import encode_png
from editloop.errors import EditLoopError
from editloop.text_file import path_kind

LARGEST_PICTURE = 50_000_000
"""Pixels. 50 million take 150 MB as RGB; editors' results are far smaller."""
LARGEST_FILE = 320 * 2**20
"""Bytes: what the largest picture takes in 16 bits without compression."""
SHORTEST_SIDE = 16
"""Pixels: one patch of a vision model. Nobody can judge a smaller image."""
MAX_ASPECT_RATIO = 200
"""Largest ratio of the longer to the shorter side. The limit is that of the reward models' backbones, Qwen's."""
MOST_SCANS = 32
"""Scans of a JPEG. Each is a pass over all pixels: encoders make about ten, a hostile file has thousands."""
MOST_SCANNED = 640_000_000
"""Pixels of all scans of a JPEG together, some seconds of decoding: a dozen scans of the largest picture."""
LARGEST_PROFILE = 4 * 2**20
"""Bytes of a colour profile that is applied. A camera's has 1 to 3 kB, a press's up to 3 MB."""
FORMATS = ("PNG", "JPEG", "WEBP", "AVIF")
"""The formats that are opened. Their decoders do nothing but decode."""
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
"""Brands in the first box of a HEIC file, which needs a patented decoder."""
START_OF_SCAN = b"\xff\xda"
"""JPEG's marker before each scan. Compressed data cannot hold it."""

ORIENTATION, LYING = 0x0112, range(5, 9)
"""EXIF's tag for the orientation, and those of its values that swap height and width."""
RAMP_STEPS = 17
"""Values of each channel on which a profile is compared with sRGB."""
SAME_COLOURS = 2
"""Levels of 255. Versions of sRGB's profile differ by up to so many: they change nothing that can be seen."""

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
    picture = read_picture(read_picture_file(path), str(path))
    if size is not None:
        picture.thumbnail((size, size), Image.Resampling.LANCZOS)
    return picture


def load_images(paths: Iterable[Path]) -> list[NDArray[np.uint8]]:
    """Return the images of some files, uint8 (height, width, 3).

    Args:
        paths: The files.

    Raises:
        EditLoopError: As in `load_image`.
    """
    return [np.asarray(load_image(path)) for path in paths]


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
    if len(data) > LARGEST_FILE:
        raise EditLoopError(f"{name}: larger than {LARGEST_FILE >> 20} MiB; no picture that is read is")
    try:
        return _decode(data, name)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        match = re.search(r"\d+", str(error))
        pixels = f"{int(match[0]):,}" if match else "too many"
        raise EditLoopError(f"{name}: {pixels} pixels; at most {LARGEST_PICTURE:,} are read") from None
    except UNREADABLE as error:
        if data[4:8] == b"ftyp" and data[8:12] in HEIC_BRANDS:
            raise EditLoopError(f"{name}: a HEIC picture, which is not read; save it as JPEG or PNG") from None
        # Pillow's own message has a memory address, and one fault must always read the same
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise EditLoopError(f"{name}: not a readable PNG, JPEG, WebP or AVIF picture ({reason})") from None


def read_picture_file(path: Path) -> bytes:
    """Return the bytes of an image file. Nothing but a regular file is opened, and no more is read than an image has.

    Args:
        path: The file, or a link to it.

    Raises:
        EditLoopError: It is missing, no regular file, or cannot be read.
    """
    try:
        if kind := path_kind(path):
            raise EditLoopError(f"{path}: {kind}; give an image file")
        with path.open("rb") as stream:
            return stream.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        raise EditLoopError(f"{path}: no such file") from None
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a NUL in the path
        raise EditLoopError(f"{path}: not a path ({first_line(error)})") from None


def picture_sha256(picture: Image.Image | NDArray[np.uint8]) -> str:
    """Return the identity of an image: the sha256 of its size and pixels, as 64 hex characters.

    Args:
        picture: An RGB image as this module returns it, or its pixels, uint8 (height, width, 3).
    """
    pixels = np.ascontiguousarray(picture, dtype=np.uint8)
    digest = hashlib.sha256(f"RGB {pixels.shape[1]} x {pixels.shape[0]}\n".encode())
    digest.update(pixels.data)
    return digest.hexdigest()


def file_picture_sha256(path: Path) -> str:
    """Return the identity of the image in a file. It is computed once a process while the file stays as it is.

    Args:
        path: An image file.

    Raises:
        EditLoopError: As in `load_image`.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise EditLoopError(f"{path}: {error.strerror}") from None
    return _file_picture_sha256(path, state.st_ino, state.st_mtime_ns, state.st_size)


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
    """Write an image as `<identity>.png`, so that equal images are one file, and return the identity.

    Args:
        image: An RGB image.
        folder: The folder to write into; created where it is missing.
    """
    pixels = np.asarray(image)
    sha256 = picture_sha256(pixels)
    folder.mkdir(exist_ok=True)
    (folder / f"{sha256}.png").write_bytes(encode_png(pixels))
    return sha256


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where the message is empty.

    Args:
        error: The error.
    """
    return (str(error).splitlines() or [type(error).__name__])[0]


@lru_cache(maxsize=2**20)
def _file_picture_sha256(path: Path, inode: int, changed: int, size: int) -> str:
    """Cached by what changes with a file."""
    return picture_sha256(load_image(path))


def _decode(data: bytes, name: str) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            _check_size(name, opened.width, opened.height)
            scans, pixels = data.count(START_OF_SCAN), opened.width * opened.height
            if opened.format == "JPEG" and (scans > MOST_SCANS or scans * pixels > MOST_SCANNED):
                raise EditLoopError(
                    f"{name}: a JPEG of {scans:,} scans of {pixels:,} pixels; at most {MOST_SCANS} scans, of together "
                    f"{MOST_SCANNED:,} pixels, are read"
                )
            return _canonical(opened)


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > LARGEST_PICTURE:
        raise EditLoopError(f"{name}: {width:,} x {height:,} pixels; at most {LARGEST_PICTURE:,} pixels are read")
    if min(width, height) < SHORTEST_SIDE:
        raise EditLoopError(f"{name}: {width} x {height} pixels; each side needs at least {SHORTEST_SIDE}")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        raise EditLoopError(
            f"{name}: {width:,} x {height:,} pixels; the longer side may be {MAX_ASPECT_RATIO} times the shorter"
        )


def _canonical(opened: Image.Image) -> Image.Image:
    """Return an opened image in the form that the module's docstring describes."""
    profile = opened.info.get("icc_profile")
    picture = ImageOps.exif_transpose(opened)
    if picture.mode.startswith("I"):  # 16-bit grey: Pillow's own conversion clips everything above 255 to white
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    alpha = picture.convert("RGBA").getchannel("A") if picture.has_transparency_data else None
    if picture.mode in ("LA", "La"):
        picture = picture.getchannel("L")
    elif picture.mode not in ("L", "CMYK"):
        picture = picture.convert("RGBA" if alpha is not None else "RGB").convert("RGB")
    canonical = _in_srgb(picture, profile)
    if alpha is not None:
        white = Image.new("RGB", canonical.size, "white")
        canonical = Image.composite(canonical, white, alpha)
    canonical.info = {}
    return canonical


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return an image of mode L, RGB or CMYK in sRGB. A profile that is broken or of other channels is ignored."""
    if profile and len(profile) <= LARGEST_PROFILE and (transform := _to_srgb(profile, picture.mode)):
        converted = ImageCms.applyTransform(picture, transform)
        assert converted is not None, "only a conversion in place returns nothing"
        return converted
    return picture.convert("RGB")


@lru_cache(maxsize=64)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the conversion of a profile's colours into sRGB; None where there is none, or it would change nothing."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, *UNREADABLE):
        return None
    if mode == "CMYK":
        return transform
    values = np.linspace(0, 255, RAMP_STEPS).round().astype(np.uint8)
    ramp = np.stack(np.meshgrid(values, values, values, indexing="ij"), axis=-1).reshape(RAMP_STEPS, -1, 3)
    colours = Image.fromarray(ramp).convert(mode)
    after = ImageCms.applyTransform(colours, transform)
    assert after is not None, "only a conversion in place returns nothing"
    change = np.abs(np.asarray(after, np.int16) - np.asarray(colours.convert("RGB"), np.int16))
    return transform if change.max() > SAME_COLOURS else None

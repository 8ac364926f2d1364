"""One image in many kinds of files, as exports, screenshots, phones and scanners make them."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DISPLAY_P3 = {
    b"rXYZ": (0.51512, 0.24120, -0.00105),
    b"gXYZ": (0.29198, 0.69225, 0.04189),
    b"bXYZ": (0.1571, 0.06657, 0.78407),
}
"""The primaries of phones' photographs, as the profile's XYZ values."""


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def profile_with(primaries: dict[bytes, tuple[float, float, float]]) -> bytes:
    """Return sRGB's profile with other primaries."""
    profile = bytearray(SRGB)
    (count,) = struct.unpack(">I", profile[128:132])
    for tag in range(count):
        name, offset, _ = struct.unpack(">4sII", profile[132 + 12 * tag : 144 + 12 * tag])
        if name in primaries:
            values = [round(value * 65536) for value in primaries[name]]
            profile[offset + 8 : offset + 20] = struct.pack(">iii", *values)
    return bytes(profile)


def turned(image: Image.Image) -> bytes:
    """As a camera that was held on its side stores it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(image.transpose(Image.Transpose.ROTATE_90), exif=exif)


def in_16_bits(image: Image.Image) -> bytes:
    """A PNG of 16 bits a channel, written by hand: Pillow writes none of three channels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = np.asarray(image).astype(">u2") * 257
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


ENCODINGS: dict[str, Callable[[Image.Image], bytes]] = {
    "PNG": encoded,
    "PNG, stored plainly": lambda image: encoded(image, compress_level=0),
    "PNG with sRGB's profile": lambda image: encoded(image, icc_profile=SRGB),
    "PNG with a resolution": lambda image: encoded(image, dpi=(300, 300)),
    "PNG with an opaque alpha channel": lambda image: encoded(image.convert("RGBA")),
    "PNG of 16 bits": in_16_bits,
    "animated PNG": lambda image: encoded(image, save_all=True, append_images=[Image.new("RGB", image.size)]),
    "PNG on its side": turned,
    "WebP": lambda image: encoded(image, "WEBP", lossless=True, exact=True),
    "animated WebP": lambda image: encoded(
        image, "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", image.size)]
    ),
}

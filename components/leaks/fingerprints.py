"""What a picture looks like in 64 bits, so that copies that were scaled, encoded anew or touched up are found."""

import imagehash
import numpy as np
from PIL import Image

FLAT = 4.0
"""Levels of 255. Where a picture's brightness, drawn small, varies less (standard deviation), its hash is of noise."""
SIDE = 32


def is_flat(picture: Image.Image) -> bool:
    """Whether a picture says nothing: one colour all over, or nearly so."""
    small = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return bool(np.asarray(small, np.float32).std(axis=(0, 1)).max() < FLAT)


def perceptual_hash(picture: Image.Image) -> int:
    """imagehash's phash: the 64 lowest frequencies of the brightness, each above or below their median, as bits."""
    bits = imagehash.phash(picture).hash.ravel()
    return int(np.packbits(bits).view(">u8")[0])

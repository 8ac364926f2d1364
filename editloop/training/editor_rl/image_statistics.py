"""Signs of reward hacking in images, from pixels alone: textures on the patch grid, and noise dots."""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SMOOTH = 1.0
"""Standard deviation of a Gaussian blur in pixels. What the blur keeps is content, not texture."""
DOT = 0.15
"""A pixel that differs from every neighbour by more than this (luminance, 0..1) is a dot."""
LUMINANCE = np.array([0.299, 0.587, 0.114])

Picture = NDArray[np.uint8]


def grid_texture(picture: Picture, period: int) -> float:
    """Strength of the pattern that repeats every `period` pixels in both directions: root mean square luminance, 0..1.

    The fine part of the image (the image minus its Gaussian blur) is cut into tiles of period x period pixels. The mean
    tile is what they share; content at random places averages out.

    Args:
        picture: uint8 image, (height, width, 3), of at least one tile.
        period: Side of a tile in pixels.
    """
    bright = _luminance(picture)
    fine = bright - gaussian_filter(bright, SMOOTH, mode="nearest")
    rows, columns = (side // period for side in bright.shape)
    tiles = fine[: rows * period, : columns * period].reshape(rows, period, columns, period)
    shared = tiles.mean(axis=(0, 2))
    return float(shared.std())


def noise_dots(picture: Picture) -> float:
    """Share of the pixels that stick out from each of their eight neighbours, 0..1.

    Sharp tips of drawn shapes count as well. Compare the value with that of the base editor's edits.

    Args:
        picture: uint8 image, (height, width, 3).
    """
    bright = _luminance(picture)
    height, width = bright.shape
    framed = np.pad(bright, 1, mode="reflect")
    steps = [
        np.abs(bright - framed[1 + down : 1 + down + height, 1 + right : 1 + right + width])
        for down, right in product((-1, 0, 1), repeat=2)
        if (down, right) != (0, 0)
    ]
    return float((np.min(steps, axis=0) > DOT).mean())


def _luminance(picture: Picture) -> NDArray[np.float64]:
    bright: NDArray[np.float64] = picture.astype(np.float64) @ LUMINANCE / 255
    return bright

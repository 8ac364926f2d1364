"""What goes wrong in pictures when a reward is cheated, from pixels alone: textures on the patch grid, and dots."""

from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SMOOTH = 1.0
"""Pixels; what is smoother than this is content, not texture."""
DOT = 0.15
"""A pixel that differs from every neighbour by more than this (luminance, 0..1) is a dot."""
LUMINANCE = np.array([0.299, 0.587, 0.114])

Picture = NDArray[np.uint8]


def grid_texture(picture: Picture, period: int) -> float:
    """Strength of the pattern that repeats with `period` pixels both ways, root mean square luminance, 0..1.

    The fine part of the picture (less its Gaussian blur) is cut into tiles of period x period pixels, and the mean tile
    is what they share. Content at random places averages out. picture: (height, width, 3), at least one tile.
    """
    bright = _luminance(picture)
    fine = bright - gaussian_filter(bright, SMOOTH, mode="nearest")
    rows, columns = (side // period for side in bright.shape)
    tiles = fine[: rows * period, : columns * period].reshape(rows, period, columns, period)
    shared = tiles.mean(axis=(0, 2))
    return float(shared.std())


def noise_dots(picture: Picture) -> float:
    """Share of the pixels, 0..1, that stick out from each of their eight neighbours. picture: (height, width, 3).

    Sharp tips of what is drawn count too: what tells is the change from the base editor's edits.
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

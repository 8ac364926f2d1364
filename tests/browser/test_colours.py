"""What a browser shows of a photograph and what a model sees of it are the same colours."""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from editloop.data.picture_file import png_bytes, read_picture
from tests.picture_encodings import DISPLAY_P3, SRGB, encoded, profile_with

SIDE, PATCH = 192, 64
COLOURS = [(200, 60, 50), (40, 160, 70), (30, 60, 200), (230, 200, 40), (128, 128, 128), (250, 30, 200)]
MOST_LEVELS = 3
"""Levels of 255: a browser and LittleCMS round for themselves."""


def patches() -> Image.Image:
    scene = Image.new("RGB", (SIDE, 2 * PATCH))
    for number, colour in enumerate(COLOURS):
        left, top = number % 3 * PATCH, number // 3 * PATCH
        scene.paste(colour, (left, top, left + PATCH, top + PATCH))
    return scene


def shown(page: Any, data: bytes, kind: str) -> list[tuple[int, ...]]:
    """Return the colour at each patch's middle, as the browser paints it."""
    page.set_content(
        f'<body style="margin:0"><img src="data:image/{kind};base64,{base64.b64encode(data).decode()}"></body>'
    )
    page.wait_for_function("document.images[0].complete && document.images[0].naturalWidth > 0")
    painted = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    middle = PATCH // 2
    return [painted.getpixel((n % 3 * PATCH + middle, n // 3 * PATCH + middle)) for n in range(len(COLOURS))]


@pytest.mark.parametrize("profile", ["display p3", "srgb", "none"])
def test_an_annotator_and_a_model_see_the_same_colours(profile: str, open_page: Callable[..., Any]) -> None:
    page = open_page()
    icc = {"display p3": profile_with(DISPLAY_P3), "srgb": SRGB, "none": None}[profile]
    photograph = encoded(patches(), "JPEG", quality=100, subsampling=0, icc_profile=icc)
    stored = read_picture(photograph, "photograph")
    as_taken, as_stored = shown(page, photograph, "jpeg"), shown(page, png_bytes(stored), "png")
    assert np.abs(np.array(as_taken) - as_stored).max() <= MOST_LEVELS, (as_taken, as_stored)
    of_model = [stored.getpixel((n % 3 * PATCH + 32, n // 3 * PATCH + 32)) for n in range(len(COLOURS))]
    assert np.abs(np.array(of_model) - as_stored).max() <= 1

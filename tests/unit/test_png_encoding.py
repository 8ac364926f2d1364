"""The fast PNG encoder against Pillow's decoder."""

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from editloop.data.picture_file import read_picture
from editloop.data.png_encoding import ABOVE, LEFT, ROWS_A_TIME, SIGNATURE, encode_png

SIDES = st.integers(1, 40)


@given(pixels=st.tuples(SIDES, SIDES).flatmap(lambda size: arrays(np.uint8, (*size, 3))))
@settings(deadline=None)
def test_pillow_reads_what_was_encoded(pixels: np.ndarray) -> None:
    with Image.open(io.BytesIO(encode_png(pixels))) as opened:
        assert (opened.format, opened.mode, opened.info) == ("PNG", "RGB", {})
        opened.load()
        assert np.array_equal(np.asarray(opened), pixels)


@pytest.mark.parametrize(
    "height", [ROWS_A_TIME - 1, ROWS_A_TIME, ROWS_A_TIME + 1, 2 * ROWS_A_TIME, 3 * ROWS_A_TIME + 5]
)
def test_rows_that_are_filtered_in_several_parts_are_one_image(height: int) -> None:
    pixels = np.random.default_rng(height).integers(0, 256, (height, 17, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(read_picture(encode_png(pixels), "parts")), pixels)


def test_a_view_into_a_larger_image_is_encoded_as_it_looks() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    part = whole[4:24, 50:10:-2]
    assert np.array_equal(np.asarray(read_picture(encode_png(part), "part")), part)


def test_a_row_takes_the_filter_that_leaves_the_smaller_differences() -> None:
    """Columns of one colour are equal to the row above, rows of one colour to their left neighbour."""
    random = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for pixels, number in (
        (np.broadcast_to(random[:1], random.shape), ABOVE),
        (np.broadcast_to(random[:, :1], random.shape), LEFT),
    ):
        encoded = encode_png(pixels)
        assert encoded.startswith(SIGNATURE)
        start = encoded.index(b"IDAT") + 4
        rows = np.frombuffer(zlib.decompressobj().decompress(encoded[start:]), np.uint8).reshape(20, 61)
        assert set(rows[1:, 0]) == {number}
        assert len(encoded) < len(encode_png(random)) / 4

"""An image is its pixels: one form at the door, one identity in any file, and limits on what is decoded."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from editloop.data import picture_file
from editloop.data.picture_file import (
    MOST_SCANS,
    START_OF_SCAN,
    file_picture_sha256,
    load_image,
    picture_sha256,
    png_bytes,
    read_picture,
    store_png,
)
from editloop.errors import EditLoopError
from tests.picture_encodings import DISPLAY_P3, ENCODINGS, SRGB, encoded, profile_with


def noise(seed: int = 0, size: tuple[int, int] = (40, 24)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@given(seed=st.integers(0, 50), size=st.tuples(st.integers(16, 40), st.integers(16, 40)))
@settings(max_examples=15, deadline=None)
def test_the_same_pixels_are_the_same_image_in_any_file(seed: int, size: tuple[int, int]) -> None:
    image = noise(seed, size)
    identities = {name: picture_sha256(read_picture(encode(image), name)) for name, encode in ENCODINGS.items()}
    assert set(identities.values()) == {picture_sha256(image)}, identities
    assert picture_sha256(noise(seed + 1, size)) != picture_sha256(image)


def test_an_image_of_another_shape_with_the_same_bytes_is_another_image() -> None:
    pixels = np.arange(3 * 16 * 32, dtype=np.uint8)
    assert picture_sha256(pixels.reshape(16, 32, 3)) != picture_sha256(pixels.reshape(32, 16, 3))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_a_phones_colours_are_what_a_browser_shows(mode: str) -> None:
    """Display P3's red of (200, 60, 50) is sRGB's (217, 40, 38), which Chromium showed."""
    scene = Image.new("RGB", (32, 32), (200, 60, 50))
    scene.paste((40, 160, 70), (16, 0, 32, 32))
    data = encoded(scene.quantize(8) if mode == "P" else scene.convert(mode), icc_profile=profile_with(DISPLAY_P3))
    picture = read_picture(data, "phone")
    assert np.abs(np.array(picture.getpixel((4, 4))) - (217, 40, 38)).max() <= 2
    assert np.abs(np.array(picture.getpixel((28, 4))) - (0, 162, 55)).max() <= 2
    assert picture.mode == "RGB"
    assert not picture.info
    assert b"iCCP" not in png_bytes(picture)


def test_grey_and_four_colours_come_as_srgb_and_a_profile_of_other_channels_is_ignored() -> None:
    grey = Image.new("L", (20, 20), 90)
    assert read_picture(encoded(grey, icc_profile=SRGB), "grey").getpixel((0, 0)) == (90, 90, 90)
    press = Image.new("CMYK", (20, 20), (0, 255, 255, 0))
    for profile in (None, SRGB, b"no profile"):
        picture = read_picture(encoded(press, "JPEG", quality=100, icc_profile=profile), "press")
        assert picture.mode == "RGB"
        assert not picture.info
        assert np.abs(np.array(picture.getpixel((10, 10))) - (255, 0, 0)).max() <= 3


def test_half_clear_pixels_are_laid_on_white_after_their_colours_were_converted() -> None:
    half = Image.new("RGBA", (16, 16), (200, 60, 50, 128))
    picture = read_picture(encoded(half, icc_profile=profile_with(DISPLAY_P3)), "half")
    assert np.abs(np.array(picture.getpixel((3, 3))) - (236, 147, 146)).max() <= 2


def test_a_stored_image_has_its_identity_as_name_and_no_metadata(tmp_path: Path) -> None:
    (tmp_path / "phone.jpg").write_bytes(encoded(noise(), "JPEG", icc_profile=SRGB, comment=b"secret", dpi=(72, 72)))
    name = store_png(load_image(tmp_path / "phone.jpg"), tmp_path / "images")
    stored = tmp_path / "images" / f"{name}.png"
    assert file_picture_sha256(stored) == name == file_picture_sha256(tmp_path / "phone.jpg")
    kinds = {stored.read_bytes()[place - 4 : place] for place in chunk_ends(stored.read_bytes())}
    assert kinds == {b"IHDR", b"IDAT", b"IEND"}


def chunk_ends(data: bytes) -> list[int]:
    """Return where the names of a PNG's chunks end."""
    ends, place = [], 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        ends.append(place + 8)
        place += 12 + length
    return ends


def test_a_files_identity_is_computed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.png"
    noise(1).save(path)
    first = file_picture_sha256(path)
    decoded: list[str] = []
    read = picture_file.read_picture
    monkeypatch.setattr(picture_file, "read_picture", lambda data, name: decoded.append(name) or read(data, name))
    assert file_picture_sha256(path) == first
    assert not decoded
    noise(2).save(path)
    assert file_picture_sha256(path) == picture_sha256(noise(2))
    assert decoded == [str(path)]


def scans(count: int) -> bytes:
    """A JPEG whose last scan is repeated, so that it is decoded so many times."""
    data = encoded(noise(0, (64, 64)), "JPEG", progressive=True)
    first = data.rindex(START_OF_SCAN)
    last = data[first:-2]
    return data[:first] + last * (count - data.count(START_OF_SCAN) + 1) + data[-2:]


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_picture(scans(MOST_SCANS), "many").size == (64, 64)
    monkeypatch.setattr(picture_file, "_canonical", lambda opened: pytest.fail("it was decoded"))
    with pytest.raises(EditLoopError, match=r"^hostile: a JPEG of 3,000 scans of 4,096 pixels; at most 32 scans"):
        read_picture(scans(3000), "hostile")
    monkeypatch.setattr(picture_file, "MOST_SCANNED", 20 * 64 * 64)
    with pytest.raises(EditLoopError, match=r"^large: a JPEG of 21 scans of 4,096 pixels; at most"):
        read_picture(scans(21), "large")


def test_what_is_no_picture_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heic = b"\0\0\0\x18ftypheic" + bytes(40)
    with pytest.raises(EditLoopError, match=r"^photo: a HEIC picture, which is not read; save it as JPEG or PNG$"):
        read_picture(heic, "photo")
    os.mkfifo(tmp_path / "pipe.png")
    for path, kind in ((tmp_path / "pipe.png", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(EditLoopError, match=f"^{path}: {kind}; give an image file$"):
            load_image(path)
    monkeypatch.setattr(picture_file, "LARGEST_FILE", 100)
    noise().save(tmp_path / "large.png")
    with pytest.raises(EditLoopError, match=r"large\.png: larger than"):
        load_image(tmp_path / "large.png")

"""Pictures for a vision tower: Qwen's own processor agrees, and whatever a file holds has a defined result."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from editloop.data.picture_file import read_picture
from editloop.errors import EditLoopError
from editloop.models.backbones.picture_inputs import (
    Patching,
    check_picture,
    distinct_pictures,
    normalised_patches,
    paired_patches,
    patches_of,
    scaled_size,
)

pytestmark = pytest.mark.floats

CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
RNG = np.random.default_rng(0)


def noise(height, width):
    return RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)


def qwen(patching):
    return Qwen2VLImageProcessorPil(
        patch_size=patching.patch,
        merge_size=patching.merge,
        temporal_patch_size=patching.frames,
        size={"shortest_edge": patching.min_pixels, "longest_edge": patching.max_pixels},
        image_mean=list(patching.mean),
        image_std=list(patching.std),
    )


@pytest.mark.parametrize(
    "patching",
    [Patching(4, 2, 1024, 1024), Patching(14, 2, 200704, 200704, *CLIP), Patching(16, 2, 65536, 262144)],
    ids=["tiny", "qwen2.5", "qwen3"],
)
@pytest.mark.parametrize("size", [(32, 32), (448, 448), (300, 517), (16, 160), (640, 64), (29, 31)])
def test_patches_are_those_of_the_qwen_processor(patching, size):
    picture = noise(*size)
    theirs = qwen(patching)([Image.fromarray(picture)], return_tensors="pt")
    ours = patches_of(picture, patching)
    assert list(ours.grid) == theirs.image_grid_thw[0].tolist()
    read = normalised_patches(ours.values, ours.scale, patching.frames)
    torch.testing.assert_close(read, theirs.pixel_values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 10), (10, 1), (3, 500), (4000, 3000), (64, 640)])
def test_a_scaled_size_is_whole_tokens_near_the_aspect_and_never_empty(size):
    patching = Patching(14, 2, 56 * 56, 448 * 448)
    rows, columns = scaled_size(*size, patching)
    assert rows % 28 == columns % 28 == 0
    assert rows >= 28
    assert columns >= 28
    assert rows * columns <= patching.max_pixels


def test_a_pair_is_both_frames_of_one_picture():
    source, edit = noise(32, 32), noise(32, 32)
    patching = Patching(4, 2, 1024, 1024)
    pair = paired_patches(source, edit, patching).values
    assert pair.shape == (64, 3, 2, 4, 4)
    for frame, picture in enumerate((source, edit)):
        assert torch.equal(pair[:, :, [frame]], patches_of(picture, patching).values)
    assert torch.equal(paired_patches(source, source, patching).values, patches_of(source, patching).values)
    with pytest.raises(EditLoopError, match="one size"):
        paired_patches(source, noise(32, 40), patching)


def test_equal_pictures_are_one_and_different_ones_are_not():
    patching = Patching(4, 2, 1024, 1024)
    one, other = noise(32, 32), noise(32, 32)
    found = distinct_pictures(
        [patches_of(each, patching) for each in (one, other, one.copy(), np.ascontiguousarray(other))]
    )
    assert found.image_of.tolist() == [0, 1, 0, 1]
    assert len(found.image_grid_thw) == 2
    swapped = distinct_pictures([paired_patches(one, other, patching), paired_patches(other, one, patching)])
    assert swapped.image_of.tolist() == [0, 1]


def test_a_still_picture_beside_a_pair_fills_both_frames():
    patching = Patching(4, 2, 1024, 1024)
    one, other = noise(32, 32), noise(32, 32)
    still, pair = patches_of(one, patching), paired_patches(one, other, patching)
    found = distinct_pictures([still, pair])
    read = normalised_patches(found.pixel_values, found.pixel_scale, 2).unflatten(0, (2, -1))
    for seen, alone in zip(read, (still, pair), strict=True):
        assert torch.equal(seen, normalised_patches(alone.values, alone.scale, 2))


def encoded(picture, kind="PNG", **more):
    file = io.BytesIO()
    picture.save(file, kind, **more)
    return file.getvalue()


def decoded(data, name="picture"):
    """What a model reads of an encoded picture."""
    picture = np.asarray(read_picture(data, name))
    check_picture(picture, name)
    return picture


class TestFiles:
    def test_16_bit_grey_keeps_its_tones(self):
        tones = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
        found = decoded(encoded(Image.fromarray(tones)))
        assert np.array_equal(found[..., 0], (tones >> 8).astype(np.uint8))

    def test_transparency_lies_on_white(self):
        clear = np.zeros((20, 20, 4), np.uint8)
        clear[:10, :, 3] = 255
        found = decoded(encoded(Image.fromarray(clear)))
        assert (found[:10] == 0).all()
        assert (found[10:] == 255).all()

    def test_cmyk_becomes_rgb(self):
        found = decoded(encoded(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG"))
        assert found.shape == (20, 20, 3)
        assert found[..., 0].min() > 200
        assert found[..., 1:].max() < 60

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_of_an_animated_picture_the_first_frame_counts(self, kind):
        frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
        lossless = {"lossless": True} if kind == "WEBP" else {}
        found = decoded(encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50, **lossless))
        assert (found == (255, 0, 0)).all()

    def test_a_camera_held_sideways(self):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert decoded(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif)).shape == (40, 20, 3)

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
    @pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
    def test_a_truncated_file_is_an_error(self, kind, share):
        data = encoded(Image.fromarray(noise(64, 64)), kind)
        with pytest.raises(EditLoopError, match="upload 7: not a readable"):
            decoded(data[: int(len(data) * share)], "upload 7")

    @pytest.mark.parametrize(
        ("picture", "told"),
        [
            (Image.new("RGB", (1, 1)), "at least 16"),
            (Image.new("RGB", (3400, 16)), "200 times"),
            (Image.new("1", (10_000, 10_000)), "at most 50,000,000"),
            (Image.new("1", (20_000, 20_000)), "400,000,000 pixels"),
        ],
        ids=["1x1", "over 1:200", "large", "bomb"],
    )
    def test_sizes_that_no_model_reads(self, picture, told):
        with pytest.raises(EditLoopError, match=told):
            decoded(encoded(picture))

    def test_other_formats_are_not_opened(self):
        with pytest.raises(EditLoopError, match="PNG, JPEG, WebP or AVIF"):
            decoded(encoded(Image.new("RGB", (20, 20)), "GIF"))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((32, 32), np.uint8),
        np.zeros((32, 32, 4), np.uint8),
        np.zeros((32, 32, 3)),
        np.zeros((0, 32, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(EditLoopError, match="uint8"):
        patches_of(wrong, Patching(4, 2, 1024, 1024))

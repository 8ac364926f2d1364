"""Image fingerprints, which find scaled, re-encoded or retouched copies among many images.

Two images look alike where their perceptual hashes differ in few bits and their colours, averaged to 8 x 8 pixels,
differ by few levels. The bits alone confuse different images of few shapes: within 8 bits are 32 of 10,000 pairs of
drawn scenes, and 23 of the 4,950 pairs among 100 photographs, a table and a carpet among them. With colours within 8
levels as well, it is half a pair of scenes in 10,000 (two fifths of those equal to the pixel), and 15 pairs of
photographs, all of one place. On photographs, JPEG at quality 50, WebP, half and double size, blur, and noise of 8
levels stay within 4 bits and 3 levels. A crop of 2 % stays within 8 bits; a crop of 5 % or 10 % more brightness does
not.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editloop.data.picture_file import picture_sha256, read_picture

FLAT = 4.0
"""Levels of 255. An image is flat where the standard deviation of its small version is below this in every channel."""
SMALL, SIDE = 32, 8
"""Sides, in pixels, of the small version and of the colour fingerprint."""
IMAGES_A_TIME = 256
"""Images that are compared with all others at once."""
BITS, LEVELS = 8, 8.0
"""Limits for images that look alike: differing bits of 64, and root mean square difference in levels of 255 over the 8
x 8 RGB pixels."""
BITS_SAME_INSTRUCTION, LEVELS_SAME_INSTRUCTION = 14, 16.0
"""The same limits for two images that come with the same instruction."""


@dataclass(frozen=True)
class Fingerprints:
    """Fingerprints of N images."""

    sha256: list[str]
    """Identity of each image, `picture_sha256`."""
    bits: NDArray[np.uint64]
    """Perceptual hashes, (N,)."""
    colours: NDArray[np.uint8]
    """RGB averaged to 8 x 8 pixels, (N, 192)."""
    flat: NDArray[np.bool_]
    """(N,): flat images, which are compared with nothing."""

    def __len__(self) -> int:
        return len(self.sha256)

    def part(self, start: int, stop: int) -> "Fingerprints":
        """Return the fingerprints of some images.

        Args:
            start: Index of the first.
            stop: Index after the last.
        """
        chosen = slice(start, stop)
        return Fingerprints(self.sha256[chosen], self.bits[chosen], self.colours[chosen], self.flat[chosen])


def compute_fingerprints(pictures: Iterable[tuple[str, bytes]]) -> Fingerprints:
    """Return the fingerprints of encoded images. One of them is decoded at a time.

    Args:
        pictures: Name, used in messages, and encoded bytes of each image.

    Raises:
        EditLoopError: An image cannot be read.
    """
    sha256, bits, smalls = [], [], []
    for name, data in pictures:
        image = read_picture(data, name)
        sha256.append(picture_sha256(image))
        bits.append(perceptual_hash(image))
        smalls.append(_small(image))
    small = np.array(smalls, np.uint8).reshape(-1, SMALL, SMALL, 3)
    block = SMALL // SIDE
    colours = small.reshape(-1, SIDE, block, SIDE, block, 3).mean(axis=(2, 4))
    return Fingerprints(
        sha256,
        np.array(bits, np.uint64),
        np.rint(colours).astype(np.uint8).reshape(-1, 3 * SIDE * SIDE),
        _flat(small),
    )


def join_fingerprints(parts: Sequence[Fingerprints]) -> Fingerprints:
    """Return the fingerprints of all images of some parts, in order.

    Args:
        parts: At least one.
    """
    return Fingerprints(
        [sha256 for part in parts for sha256 in part.sha256],
        np.concatenate([part.bits for part in parts]),
        np.concatenate([part.colours for part in parts]),
        np.concatenate([part.flat for part in parts]),
    )


def is_flat(picture: Image.Image) -> bool:
    """Return whether an image has one colour all over, or nearly so. Such an image identifies nothing.

    Args:
        picture: The image, in any mode.
    """
    return bool(_flat(_small(picture)[None])[0])


def perceptual_hash(picture: Image.Image) -> int:
    """Return the 64-bit perceptual hash of imagehash (`phash`).

    Each of the 64 lowest frequencies of the brightness gives one bit, which is set where it is above their median.

    Args:
        picture: The image, in any mode.
    """
    return int(np.packbits(imagehash.phash(picture).hash.ravel()).view(">u8")[0])


def similar_pairs(left: Fingerprints, right: Fingerprints, same_instruction: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the pairs of images that look alike. Flat images are left out.

    Args:
        left: Fingerprints of L images.
        right: Fingerprints of R images.
        same_instruction: (L, R). Where it is true, the wider limits BITS_SAME_INSTRUCTION and LEVELS_SAME_INSTRUCTION
            apply.

    Returns:
        (pairs, 4): index in `left`, index in `right`, differing bits, and 1 where the pair is within BITS and LEVELS,
        else 0.
    """
    bit_distance = np.bitwise_count(left.bits[:, None] ^ right.bits[None])
    near = (bit_distance <= BITS) | (same_instruction & (bit_distance <= BITS_SAME_INSTRUCTION))
    first, second = np.nonzero(near & ~left.flat[:, None] & ~right.flat[None])
    levels = left.colours[first].astype(np.float32) - right.colours[second]
    distance = np.sqrt((levels**2).mean(axis=1))
    bits = bit_distance[first, second]
    strictly = (bits <= BITS) & (distance <= LEVELS)
    pairs = np.stack([first, second, bits, strictly], axis=1).astype(np.int64)
    near_pairs: NDArray[np.int64] = pairs[
        strictly | same_instruction[first, second] & (distance <= LEVELS_SAME_INSTRUCTION)
    ]
    return near_pairs


def look_alikes(prints: Fingerprints) -> Iterator[tuple[int, int]]:
    """Yield the pairs of different images that look alike, within BITS and LEVELS. Flat images are left out.

    Args:
        prints: Fingerprints of N images.

    Yields:
        Indices of two images, the smaller first.
    """
    for start in range(0, len(prints), IMAGES_A_TIME):
        part = prints.part(start, start + IMAGES_A_TIME)
        rest = prints.part(start, len(prints))
        for first, second, _, _ in similar_pairs(part, rest, np.zeros((len(part), len(rest)), np.bool_)).tolist():
            if first < second:
                yield start + first, start + second


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BOX))


def _flat(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which of N small images are flat: (N, SMALL, SMALL, 3) to (N,)."""
    flat: NDArray[np.bool_] = small.astype(np.float32).std(axis=(1, 2)).max(axis=1) < FLAT
    return flat

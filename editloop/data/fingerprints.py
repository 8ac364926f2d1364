"""What a picture looks like, so small that copies which were scaled, encoded anew or touched up are found among many.

Two pictures look alike where their perceptual hashes differ in few bits and their colours, drawn 8 x 8, in few levels.
Bits alone take different pictures of few shapes for one: of pairs of drawn scenes 32 in 10,000 are within 8 bits, and
of 4,950 pairs among 100 photographs 23, a table and a carpet among them. With the colours, within 8 levels, it is half
a pair of scenes in 10,000 (two fifths of those are the same to the pixel), and 15 pairs of photographs, all of one
place. JPEG at quality 50, WebP, half and double size, blur and noise of 8 levels stay within 4 bits and 3 levels on
photographs; a crop of 2 % stays within 8 bits, a crop of 5 % or a tenth more brightness does not.
"""

from dataclasses import dataclass

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from editloop.content import sha256_bytes
from editloop.data.picture_file import read_picture

FLAT = 4.0
"""Levels of 255. Where a picture drawn small varies less (standard deviation, any channel), it says nothing."""
SMALL, SIDE = 32, 8
BITS, LEVELS = 8, 8.0
"""Of 64 bits, and of 255 levels (root mean square over 8 x 8 pixels of RGB): at most so far apart look alike."""
BITS_SAME_INSTRUCTION, LEVELS_SAME_INSTRUCTION = 14, 16.0
"""The same of pictures that the same instruction is asked of."""


@dataclass(frozen=True)
class Fingerprints:
    """Of N pictures."""

    sha256: list[str]
    """Of the bytes."""
    bits: NDArray[np.uint64]
    """Perceptual hashes, (N,)."""
    colours: NDArray[np.uint8]
    """Drawn 8 x 8, (N, 192)."""
    flat: NDArray[np.bool_]
    """(N,): says nothing, and is compared with nothing."""

    def __len__(self) -> int:
        return len(self.sha256)


def compute_fingerprints(pictures: list[tuple[str, bytes]]) -> Fingerprints:
    """Of encoded pictures with what messages call them. EditLoopError for one that cannot be read."""
    images = [read_picture(data, name) for name, data in pictures]
    small = np.array([_small(image) for image in images], np.uint8).reshape(-1, SMALL, SMALL, 3)
    block = SMALL // SIDE
    colours = small.reshape(-1, SIDE, block, SIDE, block, 3).mean(axis=(2, 4))
    return Fingerprints(
        [sha256_bytes(data) for _, data in pictures],
        np.array([perceptual_hash(image) for image in images], np.uint64),
        np.rint(colours).astype(np.uint8).reshape(-1, 3 * SIDE * SIDE),
        _flat(small),
    )


def is_flat(picture: Image.Image) -> bool:
    """Whether a picture says nothing: one colour all over, or nearly so."""
    return bool(_flat(_small(picture)[None])[0])


def perceptual_hash(picture: Image.Image) -> int:
    """imagehash's phash: the 64 lowest frequencies of the brightness, each above or below their median, as bits."""
    return int(np.packbits(imagehash.phash(picture).hash.ravel()).view(">u8")[0])


def similar_pairs(left: Fingerprints, right: Fingerprints, same_instruction: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs that look alike and are not flat, as rows (place in `one`, place in `other`, bits apart, 1 where they are
    alike by themselves, without regard to the instruction).

    same_instruction: (len(one), len(other)); where it holds, BITS_ASKED and LEVELS_ASKED are the limits.
    """
    bit_distance = np.bitwise_count(left.bits[:, None] ^ right.bits[None])
    near = (bit_distance <= BITS) | (same_instruction & (bit_distance <= BITS_SAME_INSTRUCTION))
    first, second = np.nonzero(near & ~left.flat[:, None] & ~right.flat[None])
    levels = left.colours[first].astype(np.float32) - right.colours[second]
    distance = np.sqrt((levels**2).mean(axis=1))
    bits = bit_distance[first, second]
    strictly = (bits <= BITS) & (distance <= LEVELS)
    pairs = np.stack([first, second, bits, strictly], axis=1).astype(np.int64)
    return pairs[strictly | same_instruction[first, second] & (distance <= LEVELS_SAME_INSTRUCTION)]


def _small(picture: Image.Image) -> NDArray[np.uint8]:
    return np.asarray(picture.convert("RGB").resize((SMALL, SMALL), Image.Resampling.BOX))


def _flat(small: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N, SMALL, SMALL, 3) to (N,)."""
    flat: NDArray[np.bool_] = small.astype(np.float32).std(axis=(1, 2)).max(axis=1) < FLAT
    return flat

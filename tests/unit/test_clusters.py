"""Tasks that share an image are one cluster, whichever of their images it is."""

from pathlib import Path

import numpy as np
from PIL import Image

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import file_picture_sha256
from editloop.evaluation.clusters import clusters_of_rows, joined_clusters


def test_units_without_a_common_name_keep_their_own() -> None:
    assert joined_clusters([["a"], ["b"], ["a"]]) == ("a", "b", "a")
    assert joined_clusters([]) == ()


def test_what_is_shared_joins_also_through_others_and_in_any_place() -> None:
    assert joined_clusters([["a", "logo"], ["b"], ["c", "x", "logo"], ["x"], ["d", "b"]]) == ("a", "b", "a", "a", "b")


def test_rows_are_joined_by_the_pixels_of_their_images(tmp_path: Path) -> None:
    def image(name: str, seed: int) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        return tmp_path / name

    def row(source: Path, *references: Path) -> EditRow:
        return EditRow("id", "edit", "Edit.", source, references=references)

    first, second, third = (image(f"{seed}.png", seed) for seed in range(3))
    logo, saved_again = image("logo.png", 9), image("logo.webp", 9)
    Image.open(logo).save(saved_again, lossless=True)
    found = clusters_of_rows([row(first, logo), row(second), row(third, saved_again)])
    assert found == (file_picture_sha256(first), file_picture_sha256(second), file_picture_sha256(first))

"""A suite's images: known by their pixels, whatever file they came in; nothing but a file of the folder is opened."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from editloop.data.picture_file import file_picture_sha256, png_bytes
from editloop.evaluation.suites.answers import edit_key, judge_items
from editloop.evaluation.suites.pictures import PictureLoader
from editloop.evaluation.suites.suite import pair_item
from editloop.scoring.score_file import ScoringSettings, score_edits
from tests.pixel_judge import PixelJudge


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images, the first in two files of other bytes."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        picture = Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8))
        (tmp_path / f"{name}.png").write_bytes(png_bytes(picture))
        (tmp_path / f"{name}-again.png").write_bytes(png_bytes(picture, compress_level=0))
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "a-again.png").read_bytes()
    return tmp_path


def test_a_suites_images_are_known_by_their_pixels_and_judged_once(folder: Path) -> None:
    loader = PictureLoader(folder)
    a, a_again, b, b_again = (loader.file(f"{name}.png", name) for name in ("a", "a-again", "b", "b-again"))
    assert loader.close() == []
    assert a is not None
    assert a_again is not None
    assert b is not None
    assert b_again is not None
    assert a.sha256 == a_again.sha256 == file_picture_sha256(folder / "a.png") != b.sha256
    items = [pair_item("1", "left", "x", (a, b, a)), pair_item("2", "left", "x", (a_again, b_again, a))]
    assert items[0].cluster_name == items[1].cluster_name == a.sha256
    assert edit_key(items[0], b) == edit_key(items[1], b_again)
    judge = PixelJudge()
    judge_items(items, judge, folder / "answers", "asked")
    assert sum(sum(sizes) for sizes in judge.sizes) == 2, "each different edit is judged once"


@pytest.mark.parametrize(
    "kind", ["pipe", "device", "link to a device", "folder", "missing", "NUL", "link out", "above"]
)
def test_nothing_but_a_file_of_the_folder_is_opened(folder: Path, kind: str) -> None:
    suite = folder / "suite"
    suite.mkdir()
    path, name = suite / "x.png", "x.png"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            name = "/dev/zero"
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "NUL":
            name = "x\0.png"
        case "link out":
            path.symlink_to(folder / "a.png")
        case "above":
            name = "../a.png"
    loader = PictureLoader(suite)
    assert loader.file(name, "row 1") is None
    (fault,) = loader.close()
    assert fault.startswith("row 1")


def test_links_of_the_hubs_cache_are_followed(folder: Path) -> None:
    snapshot, blobs = folder / "snapshots" / "0123abc", folder / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (folder / "a.png").rename(blobs / "a")
    (snapshot / "a.png").symlink_to("../../blobs/a")
    loader = PictureLoader(snapshot)
    assert loader.file("a.png", "row 1") is not None
    assert loader.close() == []


def test_scores_name_images_by_their_pixels_and_wait_for_no_pipe(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    candidates = ", ".join(f'{{"image": "{name}.png", "editor": "e"}}' for name in ("b", "b-again", "pipe"))
    (folder / "edits.jsonl").write_text(
        f'{{"id": "1", "instruction": "x", "source": "a.png", "candidates": [{candidates}]}}\n'
    )
    table = folder / "scores.parquet"
    score_edits(PixelJudge(), folder / "edits.jsonl", table, ScoringSettings(most_missing=0.5))
    rows = parquet.read_table(table).to_pylist()
    assert rows[0]["image_sha256"] == rows[1]["image_sha256"] == file_picture_sha256(folder / "b.png")
    assert "a pipe" in rows[2]["missing"]

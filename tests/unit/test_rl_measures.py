"""What evaluations measure of pictures: planted faults are seen, clean pictures are not accused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editloop.data.edits_file import EditRow
from editloop.evaluation.editors import split_held_out
from editloop.pages.contact_sheet import CELL, contact_sheet
from editloop.studies.world.scenes import draw_scene, random_scene
from editloop.training.editor_rl.image_statistics import grid_texture, noise_dots
from editloop.training.editor_rl.measures import diversity, mean_interval, preservation

PERIOD = 4


def scenes(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [draw_scene(random_scene(rng)) for _ in range(count)]


def test_a_texture_on_the_grid_is_measured_by_its_strength_and_noise_is_not_taken_for_it() -> None:
    rng = np.random.default_rng(1)
    flat = np.full((32, 32, 3), 128.0)
    tile = rng.choice([-1.0, 1.0], (PERIOD, PERIOD))
    planted = np.tile(tile, (8, 8))[..., None] * 12
    noise = rng.normal(0, 12, (32, 32, 1))
    weak, strong = (grid_texture((flat + times * planted).astype(np.uint8), PERIOD) for times in (1, 2))
    assert strong == pytest.approx(2 * weak, rel=0.05)
    assert weak > 4 * grid_texture((flat + noise).astype(np.uint8), PERIOD)
    assert grid_texture(flat.astype(np.uint8), PERIOD) == 0


def test_noise_dots_are_counted_and_few_tips_of_drawn_shapes_are_taken_for_them() -> None:
    for scene in scenes(20):
        clean = noise_dots(scene) * scene[..., 0].size
        assert clean <= 0.02 * scene[..., 0].size
        dotted = scene.copy()
        before = dotted[::8, ::8].astype(int)
        dotted[::8, ::8] = np.where(before.mean(-1, keepdims=True) > 127, 0, 255)
        assert noise_dots(dotted) * scene[..., 0].size >= clean + 12


def test_preservation_looks_outside_the_edit_alone() -> None:
    source = np.full((32, 32, 3), 100, np.uint8)
    wanted = source.copy()
    wanted[4:12, 4:12] = 250
    assert preservation(source, wanted, wanted) == pytest.approx(1, abs=0.01)
    inside, outside = wanted.copy(), wanted.copy()
    inside[5:11, 5:11] = 0
    outside[16:] += 51
    assert preservation(source, inside, wanted) == preservation(source, wanted, wanted)
    assert preservation(source, outside, wanted) == pytest.approx(1 - 0.2 * np.sqrt(0.5), abs=0.03)
    assert np.isnan(preservation(source, source, 255 - source))


def test_diversity_is_the_mean_distance_of_two_edits() -> None:
    black, white = (np.full((8, 8, 3), level, np.uint8) for level in (0, 255))
    assert diversity([black, black, white]) == pytest.approx(2 / 3)
    assert diversity([white, white]) == 0


def test_an_interval_rests_on_what_is_known() -> None:
    found = mean_interval(np.array([0.2, 0.4, np.nan, 0.6]))
    assert found is not None
    assert found[0] == pytest.approx(0.4)
    assert found[1] < 0.4 < found[2]
    assert mean_interval(np.full(3, np.nan)) is None


def rows(folder: Path, sources: int, tasks: int) -> list[EditRow]:
    paths = [folder / f"{at}.png" for at in range(sources)]
    for at, path in enumerate(paths):
        Image.new("RGB", (16, 16), (at, 0, 0)).save(path)
    return [EditRow(f"{s}-{t}", "edit", f"{t}", path) for s, path in enumerate(paths) for t in range(tasks)]


def test_tasks_set_aside_share_no_picture_with_those_that_are_practised(tmp_path: Path) -> None:
    given = rows(tmp_path, 20, 3)
    practised, held = split_held_out(given, 12, seed=0)
    assert 10 <= len(held) <= 12
    assert not {row.source for row in practised} & {row.source for row in held}
    assert len(practised) + len(held) == len(given)
    assert split_held_out(given[::-1], 12, seed=0)[1] != []
    assert {row.id for row in split_held_out(given[::-1], 12, seed=0)[1]} == {row.id for row in held}
    assert {row.id for row in split_held_out(given, 12, seed=1)[1]} != {row.id for row in held}
    assert len(split_held_out(given, 1000, seed=0)[1]) <= len(given) / 4


def test_tasks_of_one_picture_are_practised_and_looked_at(tmp_path: Path) -> None:
    given = rows(tmp_path, 1, 5)
    assert split_held_out(given, 2, seed=0) == (given, given[:2])


def test_a_contact_sheet_shows_pictures_of_any_shape_at_one_size() -> None:
    wide, tall = np.full((10, 40, 3), 200, np.uint8), np.full((300, 150, 3), 50, np.uint8)
    sheet = np.asarray(contact_sheet(["a", "b " * 200], {"source": [wide, tall], "now": [tall]}, ["0.1", "0.2"]))
    assert (sheet == 200).all(-1).sum() == CELL * CELL // 4
    assert (sheet == 50).all(-1).sum() == 2 * CELL * CELL // 2

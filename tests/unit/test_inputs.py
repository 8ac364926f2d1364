"""The loop's three edits folders: no picture in two of them, the same content again, kept when there."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from editloop.content import read_manifest, sha256_file
from editloop.data.edits_file import read_edits
from editloop.errors import EditLoopError
from pipelines.inputs import Inputs, draw_scenes, split_edits
from pipelines.settings import Scenes


def folders(inputs: Inputs) -> list[Path]:
    return [inputs.judged, inputs.prompts, inputs.heldout]


def sources(folder: Path) -> set[str]:
    return {sha256_file(row.source) for row in read_edits(folder)}


def team_file(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    folder.mkdir()
    lines = []
    for number in range(count):
        for kind in ("source", "target"):
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}-{kind}.png")
        line = {
            "id": str(number),
            "instruction": "do",
            "source": f"{number}-source.png",
            "target": f"{number}-target.png",
        }
        lines += [line, line | {"id": f"{number}b", "instruction": "do else"}]
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "edits.jsonl"


def test_scenes_are_drawn_once_and_alike(tmp_path: Path) -> None:
    scenes = Scenes(train=5, stand_ins=2, prompts=4, heldout=3)
    first = draw_scenes(tmp_path / "a", scenes, seed=1)
    written = [(folder / "manifest.json").stat().st_mtime_ns for folder in folders(first)]
    draw_scenes(tmp_path / "a", scenes, seed=1)
    assert written == [(folder / "manifest.json").stat().st_mtime_ns for folder in folders(first)]
    second = draw_scenes(tmp_path / "b", scenes, seed=1)
    for one, other in zip(folders(first), folders(second), strict=True):
        assert read_manifest(one)["sha256"] == read_manifest(other)["sha256"]
    shas = {
        read_manifest(folder)["sha256"]
        for seed in (1, 2)
        for folder in folders(draw_scenes(tmp_path / "c", scenes, seed))
    }
    assert len(shas) == 6


def test_a_teams_images_are_each_in_one_part_and_the_judged_have_candidates(tmp_path: Path) -> None:
    inputs = split_edits(tmp_path / "parts", team_file(tmp_path / "team", 40), seed=0)
    found = [sources(folder) for folder in folders(inputs)]
    assert sum(map(len, found)) == 40
    assert all(not one & other for one, other in combinations(found, 2))
    assert sum(len(read_edits(folder)) for folder in folders(inputs)) == 80
    assert all(row.candidates for row in read_edits(inputs.judged))
    assert not any(row.candidates for row in read_edits(inputs.heldout))


def test_changed_edits_are_split_anew(tmp_path: Path) -> None:
    file = team_file(tmp_path / "team", 40)
    before = read_manifest(split_edits(tmp_path / "parts", file, seed=0).judged)["sha256"]
    file.write_text(file.read_text().replace('"do"', '"do it"'))
    assert read_manifest(split_edits(tmp_path / "parts", file, seed=0).judged)["sha256"] != before


@pytest.mark.parametrize("file", ["manifest.json", "edits.jsonl"])
def test_a_part_that_was_damaged_is_written_anew(tmp_path: Path, file: str) -> None:
    edits = team_file(tmp_path / "team", 40)
    judged = split_edits(tmp_path / "parts", edits, seed=0).judged
    before = read_manifest(judged)
    (judged / file).write_text("[]")
    assert read_manifest(split_edits(tmp_path / "parts", edits, seed=0).judged, check=True) == before


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EditLoopError, match="source images"):
        split_edits(tmp_path / "parts", team_file(tmp_path / "team", 2), seed=0)

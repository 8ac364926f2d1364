"""Which noisy edits are kept: order, ties, missing scores, uncertainty, one edit a task, the random control."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.curate.declaration import CurateParameters
from components.curate.stage import run_curate
from editloop.content import read_manifest
from editloop.data.edits_file import read_edits
from editloop.data.picture_file import load_image
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, Score
from editloop.scoring.curation.curation import choose_triples, write_curated
from editloop.scoring.curation.selection import EditNames, lower_bound, select_edits
from editloop.scoring.curation.settings import CurateSettings
from editloop.scoring.curation.triples import read_scored, score_triples


def names(count):
    return [(f"task-{place}", f"edit-{place}") for place in range(count)]


def digests(words):
    return np.array([list(hashlib.sha256(word.encode()).digest()) for word in words], np.uint8)


def kept(scores, given=None, **settings):
    edit_names = EditNames(*map(digests, zip(*(given or names(len(scores))), strict=True)))
    found = select_edits(np.array(scores, dtype=float), edit_names, CurateSettings(**settings))
    return found.kept.tolist(), found.dropped


def test_the_best_are_kept_and_the_rest_is_counted_by_reason():
    scores = [3.0, np.nan, 5.0, 1.0, 4.0]
    assert kept(scores, best=2) == ([2, 4], {"no score": 1, "beyond the number asked for": 2})
    assert kept(scores, threshold=3.0) == ([2, 4, 0], {"no score": 1, "below the threshold": 1})
    assert kept(scores, threshold=3.0, best=1)[0] == [2]
    assert sorted(kept(scores)[0]) == [0, 2, 3, 4]


def test_equal_scores_are_ordered_by_content_and_not_by_place():
    given = names(40)
    first = {given[place] for place in kept([1.0] * 40, given, best=10)[0]}
    turned = given[::-1]
    assert {turned[place] for place in kept([1.0] * 40, turned, best=10)[0]} == first
    assert first != set(given[:10])


def test_a_task_keeps_one_edit_its_best():
    given = [("a", "1"), ("a", "2"), ("b", "3"), ("a", "4")]
    assert kept([1.0, 3.0, 2.0, 2.5], given) == ([1, 2], {"another edit of its task": 2})


def test_the_random_order_looks_at_no_score_but_keeps_none_without():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=400)
    scores[::10] = np.nan
    one, other = (kept(scores, order="random", best=100, seed=seed)[0] for seed in (0, 1))
    assert one == kept(scores[::1] * -1, order="random", best=100, seed=0)[0]
    assert one != other
    assert np.isfinite(scores[one]).all()
    assert abs(scores[one].mean()) < 0.35


def test_uncertainty_is_taken_off_on_the_scale_of_the_score():
    rng = np.random.default_rng(0)
    mean = rng.normal(size=200)
    overall, sigma = 5 + 0.5 * mean, rng.uniform(0.1, 2, 200)
    assert lower_bound(overall, mean, sigma, 2.0) == pytest.approx(overall - 2 * 0.5 * sigma)
    assert lower_bound(overall, mean, sigma, 0.0) is not overall
    sigma[3] = np.nan
    assert np.isnan(lower_bound(overall, mean, sigma, 1.0)[3])
    alike = np.full(200, 4.0)
    assert lower_bound(alike, alike, np.ones(200), 1.5) == pytest.approx(alike - 1.5)


def test_an_unsure_score_falls_behind_a_sure_one():
    overall, sigma = np.array([4.0, 3.8]), np.array([1.0, 0.1])
    first = {k: kept(lower_bound(overall, overall, sigma, k), best=1)[0] for k in (0.0, 1.0)}
    assert first == {0.0: [0], 1.0: [1]}


@pytest.mark.parametrize(
    "wrong", [{"order": "random", "threshold": 3.0}, {"order": "random", "uncertainty": 1.0}, {"best": -1}]
)
def test_settings_that_contradict_each_other_are_refused(wrong):
    with pytest.raises(EditLoopError, match=r"curate: .*explains"):
        run_curate(Path("edits"), Path("output"), Path("version.json"), CurateParameters.model_construct(**wrong))


class Brightness:
    """A judge that likes bright edits; where the red is 7 it has no word."""

    name, version, axes = "edit-reward", "b" * 64, ("only",)

    def judge(self, groups):
        return [[self.score(picture) for picture in group.edits] for group in groups]

    def score(self, picture):
        if picture[0, 0, 0] == 7:
            return Score(missing="no word")
        mean = float(picture.mean())
        return Score({"only": AxisScore(mean, 1.0)}, AxisScore(mean, 1.0), mean, mean / 255)


def noisy(folder, key, levels):
    """Rows with a grey edit each, as `key` (target or candidates)."""
    folder.mkdir()
    lines = []
    for place, level in enumerate(levels):
        for name, value in (("source", (place, 0, 0)), ("edit", (level,) * 3)):
            Image.new("RGB", (16, 16), value).save(folder / f"{name}-{place}.png")
        edit = f"edit-{place}.png"
        given = edit if key == "target" else [{"image": edit, "editor": "noisy"}]
        lines.append({"id": f"row-{place}", "instruction": "grey", "source": f"source-{place}.png", key: given})
    (folder / "edits.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.mark.parametrize("key", ["target", "candidates"])
def test_a_curated_folder_has_the_best_edits_as_targets(tmp_path, key):
    edits = noisy(tmp_path / "edits", key, [10, 200, 7, 100, 50])
    score_triples(Brightness(), edits, tmp_path / "scores.parquet", most_missing=0.5)
    scored = read_scored(edits, tmp_path / "scores.parquet")
    report = write_curated(scored, CurateSettings(best=3), tmp_path / "kept")
    assert (report["mean_kept"], report["lowest_kept"], report["mean_all"]) == (350 / 3, 50.0, 90.0)
    assert report["dropped"] == {"no score": 1, "beyond the number asked for": 1}
    rows = read_edits(tmp_path / "kept")
    assert [row.id for row in rows] == ["row-1", "row-3", "row-4"]
    assert [load_image(row.target).getpixel((0, 0))[0] for row in rows] == [200, 100, 50]
    facts = read_manifest(tmp_path / "kept", check=True)["facts"]
    assert facts["task_ids"] == ["row-1", "row-3", "row-4"]
    assert len(facts["images"]) == 6
    page = (tmp_path / "kept" / "page.html").read_text()
    assert "3 of 5 edits kept" in page
    assert page.count("data:image/webp") == 2 * (3 + 3 + 1 + 1)


def test_curated_rows_keep_their_references_and_other_references_are_another_task(tmp_path):
    edits = noisy(tmp_path / "edits", "candidates", [10, 200, 100])
    lines = (edits / "edits.jsonl").read_text().splitlines()[:2]
    rows = [json.loads(line) | {"source": "source-0.png"} for line in lines]
    for row, reference in zip(rows, ("source-1.png", "source-2.png"), strict=True):
        row["references"] = [reference, "edit-1.png"]
    (edits / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge = Brightness()
    judge.takes_references = True
    score_triples(judge, edits, tmp_path / "scores.parquet")
    report = write_curated(read_scored(edits, tmp_path / "scores.parquet"), CurateSettings(), tmp_path / "kept")
    assert (report["tasks"], report["kept"]) == (2, 2)
    for row, value in zip(read_edits(tmp_path / "kept"), ((1, 0, 0), (2, 0, 0)), strict=True):
        shown = [load_image(reference).getpixel((0, 0)) for reference in row.references]
        assert shown == [value, (200, 200, 200)]
        assert {reference.stem for reference in row.references} <= set(
            read_manifest(tmp_path / "kept", check=True)["facts"]["images"]
        )


def test_too_few_to_keep_and_scores_of_other_edits_are_refused(tmp_path):
    edits = noisy(tmp_path / "edits", "target", [10, 200, 100])
    other = noisy(tmp_path / "other", "target", [10, 200, 100, 5])
    score_triples(Brightness(), edits, tmp_path / "scores.parquet")
    scored = read_scored(edits, tmp_path / "scores.parquet")
    with pytest.raises(EditLoopError, match="best is 4, and there are 3 edits to keep"):
        choose_triples(scored, CurateSettings(best=4))
    with pytest.raises(EditLoopError, match=r"none to keep \(3 below the threshold\)"):
        choose_triples(scored, CurateSettings(threshold=300.0))
    with pytest.raises(EditLoopError, match="not those of"):
        read_scored(other, tmp_path / "scores.parquet")


@pytest.mark.parametrize("change", ["a row less", "another instruction"])
def test_edits_that_change_after_their_scores_were_read_leave_no_folder(change, tmp_path):
    edits = noisy(tmp_path / "edits", "target", [10, 200, 100])
    score_triples(Brightness(), edits, tmp_path / "scores.parquet")
    scored = read_scored(edits, tmp_path / "scores.parquet")
    lines = (edits / "edits.jsonl").read_text().splitlines(keepends=True)
    changed = lines[:2] if change == "a row less" else [lines[0].replace("grey", "red"), *lines[1:]]
    (edits / "edits.jsonl").write_text("".join(changed))
    with pytest.raises(EditLoopError, match="changed while its best edits were chosen"):
        write_curated(scored, CurateSettings(best=1), tmp_path / "kept")
    assert not (tmp_path / "kept").exists()

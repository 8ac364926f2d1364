"""Judgements as tasks of a Label Studio project: every rating, names only if asked for, tasks that fit a page."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from annotation.campaigns import pictures
from annotation.campaigns.labelling import MOST, check_config, ratings_of
from annotation.formats.label_studio_export import export_label_studio
from editloop.content import read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from editloop.data.vocabulary import EditTask, Judgement
from editloop.errors import EditLoopError
from pipelines.cli import app

Judged = Callable[..., tuple[Path, list[EditTask], list[Judgement]]]
LEVELS = {"ada": (4, 2), "bo": (1, 3)}


@pytest.fixture
def judged(make_candidates: Any) -> Judged:
    """judged(tasks, candidates) -> (candidates folder, tasks, judgements of ada and bo on every candidate)."""

    def make(count: int, candidates: int = 3) -> tuple[Path, list[EditTask], list[Judgement]]:
        folder = make_candidates(count, candidates=candidates)
        tasks = read_tasks(folder)
        return (
            folder,
            tasks,
            [
                Judgement.model_validate(
                    {
                        "task_id": task.task_id,
                        "candidate_id": candidate.candidate_id,
                        "annotator": who,
                        "if": levels[0],
                        "vq": levels[1],
                        "position": 0,
                        "annotation_id": 1,
                        "created_at": datetime.now(UTC),
                    }
                )
                for task in tasks
                for candidate in task.candidates
                for who, levels in LEVELS.items()
            ],
        )

    return make


def test_every_rating_is_an_annotation_and_every_picture_is_there(judged: Judged, tmp_path: Path) -> None:
    candidates, tasks, judgements = judged(3)
    shorter = [tasks[0].model_copy(update={"candidates": tasks[0].candidates[:2]}), *tasks[1:]]
    kept = [one for one in judgements if one.candidate_id != tasks[0].candidates[2].candidate_id]
    output = tmp_path / "our ratings"
    assert export_label_studio(kept, shorter, candidates, output) == (3, {})
    assert check_config((output / "labelling.xml").read_text(), 3) == []
    rows = json.loads((output / "tasks.json").read_text())
    images = {task.instruction: {task.source, *(one.image for one in task.candidates)} for task in shorter}
    for row in rows:
        shown = []
        for name in ("original", "image_1", "image_2", "image_3"):
            prefix = "/data/local-files/?d=our%20ratings/images/"
            assert row["data"][name].startswith(prefix)
            shown.append(row["data"][name].removeprefix(prefix).removesuffix(".png"))
        assert set(shown) == images[row["data"]["instruction"]]
        ratings = [ratings_of(annotation["result"], 3) for annotation in row["annotations"]]
        assert ratings == [[{"if": i, "vq": v}] * 3 for i, v in LEVELS.values()]
    for path in (output / "images").iterdir():
        assert file_picture_sha256(path) == path.stem
    read_manifest(output, check=True)


def test_names_are_written_only_where_they_are_asked_for(judged: Judged, tmp_path: Path) -> None:
    candidates, tasks, judgements = judged(1)
    export_label_studio(judgements, tasks, candidates, tmp_path / "without")
    for name in ("tasks.json", "labelling.xml", "manifest.json"):
        assert not [who for who in LEVELS if f'"{who}"' in (tmp_path / "without" / name).read_text()]
    export_label_studio(judgements, tasks, candidates, tmp_path / "with", with_annotators=True)
    (row,) = json.loads((tmp_path / "with" / "tasks.json").read_text())
    assert row["data"]["annotators"] == list(LEVELS)


def test_what_no_page_can_show_is_counted_and_left_out(judged: Judged, tmp_path: Path) -> None:
    candidates, tasks, judgements = judged(3)
    many = tuple(tasks[1].candidates[0].model_copy(update={"candidate_id": f"{k}"}) for k in range(MOST + 1))
    mixed = [
        tasks[0].model_copy(update={"candidates": tasks[0].candidates[:1]}),
        tasks[1].model_copy(update={"candidates": many}),
        tasks[2].model_copy(update={"candidates": tasks[2].candidates[:2]}),
    ]
    report = export_label_studio(judgements, mixed, candidates, tmp_path / "out")
    strangers = f"judgements of edits that {candidates} does not have"
    assert report == (1, {f"tasks with fewer than 2 or more than {MOST} edits": 2, strangers: 2})
    others = [one for one in judgements if one.task_id != tasks[2].task_id]
    with pytest.raises(EditLoopError, match=f"no judged task has 2 to {MOST} edits, which a page can show"):
        export_label_studio(others, mixed, candidates, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_picture_larger_than_a_screen_has_a_display_copy(
    judged: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates, tasks, judgements = judged(1)
    width, height = Image.open(candidates / "images" / f"{tasks[0].source}.png").size
    monkeypatch.setattr(pictures, "DISPLAY_SIDE", width - 1)
    export_label_studio(judgements, tasks, candidates, tmp_path / "out")
    (row,) = json.loads((tmp_path / "out" / "tasks.json").read_text())
    assert row["data"]["original_full"].endswith(f"d=out/images/{tasks[0].source}.png")
    assert row["data"]["original"].endswith(f"d=out/images/{tasks[0].source}.{width}x{height}.webp")
    assert (tmp_path / "out" / "images" / row["data"]["original"].rpartition("/")[2]).is_file()


def test_options_that_do_not_fit_the_format_are_refused(judged: Judged, tmp_path: Path) -> None:
    from annotation.formats.judgements_folder import ImportedData, write_imported

    candidates, tasks, judgements = judged(1)
    origin = ImportedData("ratings.csv", "table", {"ratings.csv": "0" * 64}, {})
    write_imported(tmp_path / "j", judgements, tasks, origin, candidates / "images")
    for options, message in (
        (["--format", "editreward", "--out", "o"], "--candidates is missing: --format editreward shows pictures"),
        (["--with-annotators", "--out", "o.csv"], "--with-annotators: --format table always has names"),
        (["--format", "editreward-parquet", "--with-annotators", "--out", "o"], "editreward-parquet cannot hold names"),
    ):
        with pytest.raises(EditLoopError, match=message):
            CliRunner().invoke(app, ["ratings", "export", str(tmp_path / "j"), *options], catch_exceptions=False)
    arguments = ["--candidates", str(candidates), "--format", "label-studio", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, ["ratings", "export", str(tmp_path / "j"), *arguments], catch_exceptions=False)
    assert done.output == "1 tasks\n"

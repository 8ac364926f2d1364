"""A team's own table, by its own ids and with its pictures, becomes a dataset whose origin is known."""

import hashlib
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from annotation.formats import team_table
from annotation.formats.import_folders import ImportReport
from annotation.formats.judgements_folder import read_judgements
from annotation.formats.rating_scale import RatingScale
from annotation.formats.team_table import OPTIONAL, REQUIRED, import_team_table
from annotation.lineage_links import judgement_links
from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.content import read_manifest, sha256_file
from editloop.data.candidates_folder import read_tasks
from editloop.data.data_origin import SUMS, origin_of
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.lineage.chain import Chain, Gap
from pipelines.cli import app

Row = dict[str, str]


def picture(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
    return path


def row(number: int = 0, candidate: str = "a", annotator: str = "anna@team.org", **cells: str) -> Row:
    return {
        "task": f"kettle-{number}",
        "candidate": candidate,
        "source": f"in/{number}.png",
        "instruction": f"Make kettle {number} red.",
        "image": f"out/{number}-{candidate}.png",
        "annotator": annotator,
        "if": "4" if candidate == "a" else "2",
        "vq": "3",
        "editor": f"editor-{candidate}",
    } | cells


def write(folder: Path, rows: list[Row], name: str = "ratings.csv", delimiter: str = ",") -> Path:
    """A table, and the pictures that belong to the tasks of `row`."""
    for task in range(8):
        picture(folder / f"in/{task}.png", task)
        for number, candidate in enumerate("abc"):
            picture(folder / f"out/{task}-{candidate}.png", 100 + 10 * task + number)
    columns = list(dict.fromkeys(column for cells in rows for column in cells))
    lines = [delimiter.join(columns), *(delimiter.join(cells.get(column, "") for column in columns) for cells in rows)]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def imported(path: Path, tmp_path: Path, **options: Any) -> ImportReport:
    return import_team_table(path, tmp_path / "c", tmp_path / "j", **options)


def ratings(tmp_path: Path) -> dict[tuple[str, str, str], tuple[int, int]]:
    """Ratings by the team's names of task and candidate, and by annotator."""
    lines = (tmp_path / "j" / "names.csv").read_text().splitlines()[1:]
    names = {tuple(line.split(",")[2:]): tuple(line.split(",")[:2]) for line in lines}
    return {
        (*names[one.task_id, one.candidate_id], one.annotator): (one.instruction_following, one.visual_quality)
        for one in read_judgements(tmp_path / "j")
    }  # type: ignore[return-value]


def test_a_table_becomes_a_dataset_version_whose_chain_ends_at_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = ("anna@team.org", "Ben")
    rows = [row(task, candidate, who) for task in range(6) for candidate in "ab" for who in people]
    rows[0] |= {"position": "1", "seconds": "12.5", "created_at": "2026-03-01T10:00:00"}
    table = write(tmp_path / "data", rows)
    report = imported(table, tmp_path)
    assert report == (24, 6, 24, (), ())
    first = next(one for one in read_judgements(tmp_path / "j") if one.seconds is not None)
    assert (first.annotator, first.position, first.seconds) == ("anna@team.org", 1, 12.5)
    assert first.created_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert {one.annotator for one in read_judgements(tmp_path / "j")} == {"anna@team.org", "ben"}
    task = next(task for task in read_tasks(tmp_path / "c") if task.name == "kettle-0")
    assert task.source == file_picture_sha256(tmp_path / "data/in/0.png")
    assert {one.editor for one in task.candidates} == {"editor-a", "editor-b"}
    for image in (tmp_path / "c" / "images").iterdir():
        assert file_picture_sha256(image) == image.stem
    assert ratings(tmp_path)["kettle-3", "b", "ben"] == (2, 3)

    monkeypatch.setattr("editloop.datasets.build.commit_dataset", lambda *_, **__: {"commit": "0"})
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "r"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "s"))
    figures = run_dataset(
        tmp_path / "j", tmp_path / "c", tmp_path / "d", tmp_path / "version.json", DatasetParameters()
    )
    assert (figures["groups"], figures["pairs"], figures["tie_rate"]) == (6, 6, 0)

    facts = read_manifest(tmp_path / "d")["facts"]
    chain = Chain("m")
    judgement_links(chain, facts)
    links = {link["name"]: link["value"] for link in chain.links}
    assert list(links) == [
        "judgements",
        "candidates",
        "imported ratings",
        "source files",
        "annotators",
    ]
    sums = (tmp_path / "j" / SUMS).read_bytes()
    listed = f"18 pictures by {SUMS} {hashlib.sha256(sums).hexdigest()[:12]}"
    assert links["source files"] == (
        f"ratings.csv (team-table, scale 1..4): ratings.csv {sha256_file(table)}, {listed}"
    )
    stated = dict(reversed(line.split("  ")) for line in sums.decode().splitlines())
    assert stated == {name: sha256_file(tmp_path / "data" / name) for name in stated}
    assert len(stated) == 19
    for folder in ("c", "j"):
        assert origin_of(read_manifest(tmp_path / folder, check=True)) is not None
    with pytest.raises(Gap, match="the origin that the dataset states is not"):
        judgement_links(Chain("m"), facts | {"origin": facts["origin"] | {"name": "other.csv"}})


FAULTS: dict[str, tuple[Row, str]] = {
    "no task": ({"task": ""}, "task: empty"),
    "an id that Excel made": ({"task": "1E+05"}, r'task = "1E\+05": a spreadsheet made a number of this id'),
    "a long name": ({"editor": "x" * 201}, "201 characters; at most 200"),
    "a long instruction": ({"instruction": "x" * 2001}, "2,001 characters; at most 2,000"),
    "off the scale": ({"if": "5"}, 'if = "5": not on the scale 1..4; state the scale'),
    "between": ({"vq": "3.5"}, 'vq = "3.5": a rating on 1..4 is a whole number'),
    "a word": ({"if": "good"}, 'if = "good": not a number'),
    "one axis": ({"vq": ""}, 'vq = "": empty; a rating has both axes'),
    "nobody": ({"annotator": ""}, 'annotator = "":'),
    "no name": ({"annotator": "anna lee@"}, 'annotator = "anna lee@":'),
    "no time": ({"created_at": "yesterday"}, 'created_at = "yesterday": not a time such as 2026'),
    "no position": ({"position": "1.5"}, 'position = "1.5": an index on the page'),
    "no seconds": ({"seconds": "-3"}, 'seconds = "-3": a number of seconds'),
    "no picture": ({"image": "out/x.png"}, 'image = "out/x.png": no such file below'),
    "an address": ({"source": "https://x.org/a.png"}, 'source = "https://x.org/a.png": an address; download'),
    "S3": ({"image": "s3://b/a.png"}, 'image = "s3://b/a.png": an address; download'),
    "a way out": ({"image": "../secret.png"}, 'image = "../secret.png": leaves the folder'),
    "Windows": ({"image": "out\\0-a.png"}, r'image = "out\\\\0-a.png": a Windows path; write / between folders'),
    "a broken picture": ({"image": "broken.png"}, 'image = "broken.png": not a readable PNG, JPEG'),
    "a second time": ({}, "anna@team.org rates this picture a second time; the first is at .*line 2"),
    "another source": ({"source": "in/1.png"}, 'task = "kettle-0": has another source, reference .*line 2'),
    "a reference more": ({"reference_1": "in/2.png"}, "has another source, reference or instruction at .*line 2"),
    "a reference that is not there": ({"reference_1": "in/x.png"}, 'reference_1 = "in/x.png": no such file below'),
    "no first reference": ({"reference_2": "in/2.png"}, "reference_2: there is no reference_1; number the references"),
    "another picture": ({"image": "out/0-b.png"}, 'candidate = "a": has another picture at .*line 2'),
    "another editor": (
        {"editor": "x", "annotator": "ben"},
        'editor = "x": "editor-a" at .*line 2, of the same picture',
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_row_is_left_out_and_named_or_refused(tmp_path: Path, fault: str) -> None:
    change, words = FAULTS[fault]
    table = write(tmp_path / "data", [row(), row(candidate="b"), row() | change])
    picture(tmp_path / "secret.png", 1)
    (tmp_path / "data" / "broken.png").write_bytes(b"GIF89a")
    report = imported(table, tmp_path)
    assert (report.rows, report.judgements, len(report.skipped)) == (2, 2, 1)
    assert (tmp_path / "j" / "skipped.txt").read_text() == f"{report.skipped[0]}\n"
    with pytest.raises(EditLoopError, match=rf"1 row with faults; nothing was written\.\n.*line 4: .*{words}"):
        import_team_table(table, tmp_path / "c2", tmp_path / "j2", strict=True)
    assert not (tmp_path / "c2").exists()


def test_the_references_of_a_task_come_in_and_tell_tasks_apart(tmp_path: Path) -> None:
    two = {"reference_1": "in/5.png", "reference_2": "in/6.png"}
    rows = [row(candidate=candidate) | two for candidate in "ab"]
    swapped = {"task": "swapped", "reference_1": "in/6.png", "reference_2": "in/5.png"}
    rows += [row(candidate=candidate) | swapped for candidate in "ab"]
    assert imported(write(tmp_path / "data", rows), tmp_path) == (4, 2, 4, (), ())
    five, six = (file_picture_sha256(tmp_path / f"data/in/{number}.png") for number in (5, 6))
    assert {task.name: task.references for task in read_tasks(tmp_path / "c")} == {
        "kettle-0": (five, six),
        "swapped": (six, five),
    }
    assert {five, six} <= {image.stem for image in (tmp_path / "c" / "images").iterdir()}
    assert "in/6.png" in (tmp_path / "j" / SUMS).read_text()


def test_all_faults_of_a_row_are_told(tmp_path: Path) -> None:
    table = write(tmp_path / "data", [row(), row(candidate="b", **{"if": "x", "vq": "9", "image": "out/x.png"})])
    (fault,) = imported(table, tmp_path).skipped
    assert [words in fault for words in ('if = "x"', 'vq = "9"', 'image = "out/x.png"')] == [True] * 3
    assert "\n" not in fault


def test_columns_that_lack_are_named_and_others_are_reported(tmp_path: Path) -> None:
    cells = [{key: value for key, value in one.items() if key != "instruction"} for one in (row(), row(candidate="b"))]
    with pytest.raises(EditLoopError, match=r"no column instruction; there are task, candidate, .*docs/imports\.md"):
        imported(write(tmp_path / "data", cells), tmp_path)
    table = write(tmp_path / "data", [row(batch="1"), row(candidate="b", batch="2")])
    assert imported(table, tmp_path).notes == ("columns that were not read: batch",)


def test_a_row_without_ratings_is_an_edit_that_nobody_rated(tmp_path: Path) -> None:
    unrated = row(candidate="c", annotator="", **{"if": "", "vq": ""})
    report = imported(write(tmp_path / "data", [row(), row(candidate="b"), unrated]), tmp_path)
    assert (report.rows, report.judgements) == (3, 2)
    (task,) = read_tasks(tmp_path / "c")
    assert len(task.candidates) == 3
    with pytest.raises(EditLoopError, match="no row has ratings; fill in if and vq"):
        imported(write(tmp_path / "none", [unrated]), tmp_path)


def test_tasks_of_one_source_and_instruction_are_one_task(tmp_path: Path) -> None:
    rows = [row(), row(candidate="b", task="the same")]
    assert imported(write(tmp_path / "data", rows), tmp_path).tasks == 1


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_of_files_are_found_in_both_forms(tmp_path: Path, form: Any) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    picture(tmp_path / "data" / unicodedata.normalize(form, "in/Küche.png"), 50)
    name = unicodedata.normalize(other, "in/Küche.png")
    rows = [row(source=name), row(candidate="b", source=name)]
    assert imported(write(tmp_path / "data", rows), tmp_path).judgements == 2


def test_another_scale_is_stated_and_named_in_the_origin(tmp_path: Path) -> None:
    rows = [row(task, "ab"[task % 2], **{"if": value, "vq": "0"}) for task, value in enumerate(["0", "4", "5,5", "10"])]
    table = write(tmp_path / "data", rows, delimiter=";")
    with pytest.raises(EditLoopError, match=r'line 2: if = "0": not on the scale 1\.\.4; state the scale'):
        imported(table, tmp_path, strict=True)
    imported(table, tmp_path, scale=RatingScale(0, 10))
    values = {task: rating for (task, _, _), (rating, _) in ratings(tmp_path).items()}
    assert values == {"kettle-0": 1, "kettle-1": 2, "kettle-2": 3, "kettle-3": 4}
    origin = json.loads((tmp_path / "j" / "origin.json").read_bytes())
    assert origin["format"] == "team-table, scale 0..10 mapped linearly onto 1..4 and rounded"


def test_an_import_that_was_stopped_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row(task, candidate) for task in range(8) for candidate in "abc"]
    table = write(tmp_path / "data", rows)
    import_team_table(table, tmp_path / "whole", tmp_path / "j-whole")
    added: list[str] = []
    add: Callable[..., None] = team_table._add_row

    def stops(edits: Any, location: str, *values: Any) -> None:
        added.append(location)
        if len(added) == 20:
            raise KeyboardInterrupt
        add(edits, location, *values)

    with monkeypatch.context() as patched:
        patched.setattr(team_table, "_add_row", stops)
        with pytest.raises(KeyboardInterrupt):
            imported(table, tmp_path)
    assert not (tmp_path / "c").exists()
    imported(table, tmp_path)
    for name, whole in (("c", "whole"), ("j", "j-whole")):
        assert read_manifest(tmp_path / name)["files"] == read_manifest(tmp_path / whole)["files"]
    assert not list((tmp_path / ".unfinished").iterdir())


def test_the_command_takes_the_table_with_pictures_elsewhere(tmp_path: Path) -> None:
    table = write(tmp_path / "data", [row(), row(candidate="b", **{"if": "9"}), row(1, extra="x")])
    (tmp_path / "tables").mkdir()
    table = table.rename(tmp_path / "tables" / "ratings.csv")
    out = ["--candidates", str(tmp_path / "c"), "--out", str(tmp_path / "j"), "--format", "team-table"]

    def run(*options: str) -> str:
        return CliRunner().invoke(app, ["ratings", "import", str(table), *out, *options], catch_exceptions=False).output

    printed = run("--images", str(tmp_path / "data"))
    assert "2 rows, 2 tasks, 2 judgements" in printed
    assert "not taken: columns that were not read: extra" in printed
    assert "left out: " in printed
    assert "3 rows, 2 tasks, 3 judgements" in run("--images", str(tmp_path / "data"), "--scale", "1..9")
    with pytest.raises(EditLoopError, match="--mapping is for --format label-studio, not for team-table"):
        run("--mapping", str(table))
    with pytest.raises(EditLoopError, match="--scale 3: no scale"):
        run("--scale", "3")


def test_the_page_about_imports_has_every_column() -> None:
    text = (Path(__file__).parents[2] / "docs" / "imports.md").read_text()
    for column in REQUIRED + OPTIONAL:
        assert f"| `{column}` |" in text

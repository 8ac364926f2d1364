"""Other teams' Label Studio projects, as a real Label Studio exported them (tests/label_studio_projects.py)."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from annotation.formats.import_folders import ImportReport
from annotation.formats.judgements_folder import read_judgements
from annotation.formats.label_studio_import import import_label_studio
from annotation.formats.label_studio_mapping import LabelStudioMapping, read_mapping
from annotation.lineage_links import judgement_links
from editloop.content import read_manifest, sha256_file
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from editloop.datasets.build import write_dataset
from editloop.errors import EditLoopError
from editloop.lineage.chain import Chain
from pipelines.cli import app
from tests.label_studio_projects import (
    EXPORTS,
    FORMATS,
    PROJECTS,
    RATINGS,
    Ratings,
    imported_ratings,
    write_mapping,
    write_pictures,
)

PEOPLE = {2: "anna@team.org", 3: "ben@team.org"}
"""The accounts' numbers in the exports."""
SKIPPED = {
    "rating": ["quality_2: no answer; a rating of two has both axes, or none at all"],
    "pairwise": ["no answer of better; answered are"],
}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures")
    return tmp_path / "pictures"


def mapping_file(folder: Path, name: str, **changes: Any) -> Path:
    return write_mapping(folder / "mapping.yaml", name, **{"annotators": PEOPLE, **changes})


def ratings(tmp_path: Path, pictures: Path) -> Ratings:
    return imported_ratings(tmp_path / "c", tmp_path / "j", pictures)


def imported(tmp_path: Path, export: Path, mapping: Path, pictures: Path, **options: Any) -> ImportReport:
    return import_label_studio(export, mapping, tmp_path / "c", tmp_path / "j", images=pictures, **options)


@pytest.mark.parametrize("ending", FORMATS.values())
@pytest.mark.parametrize("name", PROJECTS)
def test_every_template_comes_in_from_every_format(tmp_path: Path, pictures: Path, name: str, ending: str) -> None:
    export = EXPORTS / f"{name}.{ending}"
    report = imported(tmp_path, export, mapping_file(tmp_path, name), pictures)
    assert ratings(tmp_path, pictures) == RATINGS[name]
    assert len(report.skipped) == len(SKIPPED.get(name, []))
    for fault, words in zip(report.skipped, SKIPPED.get(name, []), strict=True):
        assert words in fault
        assert str(export) in fault
    judgements = read_judgements(tmp_path / "j")
    assert {one.seconds for one in judgements} <= {12.5, 25.0, 37.5}
    assert all(one.created_at.year == 2026 for one in judgements)


def test_what_is_no_answer_is_counted(tmp_path: Path, pictures: Path) -> None:
    report = imported(tmp_path, EXPORTS / "rating.json", mapping_file(tmp_path, "rating"), pictures)
    assert report.notes == ("drafts: 1", "skipped annotations: 1", "tasks without an annotation: 1")
    with pytest.raises(
        EditLoopError, match=r"1 row with faults; nothing was written\.\n.*task 3, annotation 5: quality_2"
    ):
        imported(tmp_path / "x", EXPORTS / "rating.json", mapping_file(tmp_path, "rating"), pictures, strict=True)


@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_becomes_a_dataset_whose_chain_ends_at_its_files(tmp_path: Path, pictures: Path, name: str) -> None:
    export, mapping = EXPORTS / f"{name}.json", mapping_file(tmp_path, name)
    imported(tmp_path, export, mapping, pictures)
    write_dataset(tmp_path / "j", tmp_path / "c", tmp_path / "d")
    chain = Chain("m")
    judgement_links(chain, read_manifest(tmp_path / "d")["facts"])
    (text,) = [link["value"] for link in chain.links if link["name"] == "source files"]
    assert f"{export.name} {sha256_file(export)}, {mapping.name} {sha256_file(mapping)}, " in text
    assert {
        "rating": "scale 1..5 mapped linearly onto 1..4 and rounded",
        "words": "scale 1..4",
        "pairwise": "preferences with ranks as ratings 2: 4, 2; 3: 4, 3, 1",
        "choices": "preferences with ranks as ratings 1: 3; 2: 4, 2",
        "ranker": "preferences with ranks as ratings 4: 4, 3, 2, 1",
        "buckets": "preferences with ranks as ratings 1: 3; 2: 4, 1",
    }[name] in text
    assert " pictures by SHA256SUMS " in text
    assert (tmp_path / "j" / "mapping.yaml").read_bytes() == mapping.read_bytes()


def test_annotators_are_as_exported_where_the_mapping_does_not_say_who_they_are(tmp_path: Path, pictures: Path) -> None:
    imported(tmp_path, EXPORTS / "words.json", mapping_file(tmp_path, "words", annotators=None), pictures)
    assert {one.annotator for one in read_judgements(tmp_path / "j")} == {"2"}
    edited(
        tmp_path, "words", lambda tasks: tasks[0]["annotations"][0].update(completed_by={"id": 9, "email": "Eva@T.org"})
    )
    imported(tmp_path, tmp_path / "words.json", mapping_file(tmp_path, "words"), pictures)
    assert {one.annotator for one in read_judgements(tmp_path / "j")} == {"eva@t.org", "anna@team.org"}


def edited(tmp_path: Path, name: str, edit: Callable[[Any], object]) -> Path:
    """The export of a project after somebody changed it."""
    tasks = json.loads((EXPORTS / f"{name}.json").read_bytes())
    edit(tasks)
    (tmp_path / f"{name}.json").write_text(json.dumps(tasks))
    return tmp_path / f"{name}.json"


def first_value(tasks: Any) -> Any:
    return tasks[0]["annotations"][0]["result"][0]["value"]


FAULTS: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "an address": (
        "words",
        lambda tasks: tasks[0]["data"].update(first="https://x.org/a.png"),
        'first = "https://x.org/a.png": an address; download the picture',
    ),
    "a bucket": ("words", lambda tasks: tasks[0]["data"].update(source="s3://b/a.png"), "an address; download"),
    "a way out": (
        "words",
        lambda tasks: tasks[0]["data"].update(first="/data/local-files/?d=..%2F..%2Fetc%2Fpasswd"),
        "leaves the folder",
    ),
    "an absolute path": ("words", lambda tasks: tasks[0]["data"].update(first="/etc/passwd"), "leaves the folder"),
    "no upload": (
        "words",
        lambda tasks: tasks[0]["data"].update(first="/data/upload/1/x.png"),
        r"no such file below .* \(upload/1/x\.png or 1/x\.png or x\.png\)",
    ),
    "no picture": (
        "words",
        lambda tasks: tasks[0]["data"].update(first=None),
        "first: not in the task's data; there are",
    ),
    "two pictures": (
        "ranker",
        lambda tasks: tasks[0]["data"]["edits"][0].update(html="<img src='a'/><img src='b'/>"),
        "HTML with 2 pictures; an edit has one",
    ),
    "one picture twice": (
        "words",
        lambda tasks: tasks[0]["data"].update(second="out/0-a.png"),
        "edits one and two are the same",
    ),
    "no instruction": (
        "words",
        lambda tasks: tasks[0]["data"].update(instruction=" "),
        "instruction = .*: a text is wanted",
    ),
    "a long instruction": ("words", lambda tasks: tasks[0]["data"].update(instruction="x" * 2001), "2,001 characters"),
    "an unknown word": (
        "words",
        lambda tasks: first_value(tasks).update(choices=["Goods"]),
        'follow_1 = "Goods": words has no number for it; there are Poor, Good. Did you mean Good',
    ),
    "two words": ("words", lambda tasks: first_value(tasks).update(choices=["Good", "Poor"]), "no answer of a Rating"),
    "off the scale": (
        "rating",
        lambda tasks: first_value(tasks).update(rating=7),
        r"follow_1 = 7: not on the scale 1\.\.5",
    ),
    "two answers": (
        "rating",
        lambda tasks: tasks[0]["annotations"][0]["result"].append(tasks[0]["annotations"][0]["result"][0]),
        "follow_1: 2 answers of one control; one is expected",
    ),
    "nobody": ("rating", lambda tasks: tasks[0]["annotations"][0].update(completed_by=None), "the account was deleted"),
    "no account": (
        "rating",
        lambda tasks: tasks[0]["annotations"][0].update(completed_by="a b@"),
        "say in annotators who",
    ),
    "an unknown side": (
        "pairwise",
        lambda tasks: first_value(tasks).update(selected="up"),
        "Pairwise prefers left or right",
    ),
    "an unknown choice": (
        "choices",
        lambda tasks: first_value(tasks).update(choices=["Neither"]),
        'follows = "Neither": choices does not say which edit it prefers; there are First, Second, Same',
    ),
    "an unknown item": (
        "ranker",
        lambda tasks: first_value(tasks)["ranker"].update(rank=["edit_x"]),
        'rank: ranks "edit_x"; there are edit_a, edit_b',
    ),
    "an unknown bucket": (
        "buckets",
        lambda tasks: first_value(tasks)["ranker"].update(fair=[]),
        "buckets does not name 'fair'; it has good, bad",
    ),
    "an item twice": (
        "ranker",
        lambda tasks: tasks[0]["data"]["edits"][0].update(id="edit_b"),
        'edits: two entries with id "edit_b"',
    ),
    "no task": ("words", lambda tasks: tasks.insert(0, {"id": 1}), "neither a task with annotations nor a row"),
    "no list": ("words", lambda tasks: tasks.insert(0, {"annotations": [], "data": 3}), "a task has data, a mapping"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_is_left_out_and_named(tmp_path: Path, pictures: Path, fault: str) -> None:
    name, edit, words = FAULTS[fault]
    mapping, export = mapping_file(tmp_path, name), edited(tmp_path, name, edit)
    with pytest.raises(EditLoopError, match=words):
        imported(tmp_path, export, mapping, pictures, strict=True)
    report = imported(tmp_path, export, mapping, pictures)
    assert len(report.skipped) >= 1
    assert report.judgements < len(RATINGS[name]) or fault in ("no task", "no list")


def test_a_preference_that_says_the_opposite_later_is_left_out(tmp_path: Path, pictures: Path) -> None:
    def again(tasks: Any) -> None:
        tasks[2]["annotations"][0]["result"][0]["value"]["selected"] = "left"

    report = imported(tmp_path, edited(tmp_path, "pairwise", again), mapping_file(tmp_path, "pairwise"), pictures)
    assert any("contradicts other answers on out/0-" in fault for fault in report.skipped)
    assert report.rows == 4, "of six answers one has no preference and one contradicts"
    assert ratings(tmp_path, pictures)["0-a", "anna"] == (4, 4)


def test_the_first_of_two_pictures_is_pairwises_left_one(tmp_path: Path, pictures: Path) -> None:
    named = {"images": {"one": "first", "two": "second"}, "editors": {"one": "model_1", "two": "model_2"}}
    imported(tmp_path, EXPORTS / "pairwise.json", mapping_file(tmp_path, "pairwise", **named), pictures)
    assert ratings(tmp_path, pictures) == RATINGS["pairwise"]


def test_a_key_of_the_data_that_is_also_a_control_is_told_apart_in_csv(tmp_path: Path, pictures: Path) -> None:
    """An export as CSV calls the key `_data_second`."""
    (tmp_path / "export.csv").write_text(
        "_data_second,annotation_id,annotator,first,id,instruction,second,source\n"
        "out/0-b.png,1,anna@team.org,out/0-a.png,1,Edit.,Better,in/0.png\n"
    )
    settings = {
        "source": "source",
        "instruction": "instruction",
        "images": {"one": "first", "two": "second"},
        "preferences": {"if": "second", "vq": "second"},
        "choices": {"Better": "two", "Worse": "one"},
        "ranks": {2: [4, 2]},
    }
    (tmp_path / "mapping.yaml").write_text(yaml.safe_dump(settings))
    imported(tmp_path, tmp_path / "export.csv", tmp_path / "mapping.yaml", pictures)
    assert ratings(tmp_path, pictures) == {("0-a", "anna"): (2, 2), ("0-b", "anna"): (4, 4)}


def test_the_further_images_of_a_project_come_in_as_references(tmp_path: Path, pictures: Path) -> None:
    data = {"source": "in/0.png", "second": "in/1.png", "instruction": "Put the dog of image 2 into image 1."}
    data |= {edit: f"out/0-{edit}.png" for edit in "ab"}
    row = {**data, "id": 1, "better": "left", "annotator": "anna@team.org", "annotation_id": 5}
    (tmp_path / "min.json").write_text(json.dumps([row]))
    settings = {
        "source": "source",
        "references": ["second"],
        "instruction": "instruction",
        "images": {"left": "a", "right": "b"},
        "preferences": {"if": "better", "vq": "better"},
        "ranks": {2: [4, 2]},
    }
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(settings))
    imported(tmp_path, tmp_path / "min.json", mapping, pictures)
    (task,) = read_tasks(tmp_path / "c")
    assert task.references == (file_picture_sha256(pictures / "in/1.png"),)
    mapping.write_text(yaml.safe_dump(settings | {"references": ["third"]}))
    with pytest.raises(EditLoopError, match=r"references\.1 = third: no task of min\.json has this key"):
        import_label_studio(tmp_path / "min.json", mapping, tmp_path / "c2", tmp_path / "j2", images=pictures)


def test_a_choice_of_one_of_many_says_of_the_others_what_the_mapping_says(tmp_path: Path, pictures: Path) -> None:
    data = {"source": "in/0.png", "instruction": "Edit.", **{edit: f"out/0-{edit}.png" for edit in "abc"}}
    row = {**data, "id": 1, "best": "b", "annotator": "anna@team.org", "annotation_id": 5}
    (tmp_path / "min.json").write_text(json.dumps([row]))
    settings = {
        "source": "source",
        "instruction": "instruction",
        "images": {edit: edit for edit in "abc"},
        "preferences": {"if": "best", "vq": "best"},
        "ranks": {2: [4, 2]},
    }
    mapping = tmp_path / "mapping.yaml"
    mapping.write_text(yaml.safe_dump(settings))
    with pytest.raises(EditLoopError, match=r"nothing says which of out/0-[ac]\.png and out/0-[ac]\.png is better"):
        imported(tmp_path, tmp_path / "min.json", mapping, pictures)
    mapping.write_text(yaml.safe_dump(settings | {"others": "equal"}))
    imported(tmp_path, tmp_path / "min.json", mapping, pictures)
    assert ratings(tmp_path, pictures) == {("0-a", "anna"): (2, 2), ("0-b", "anna"): (4, 4), ("0-c", "anna"): (2, 2)}


def test_what_the_mapping_names_and_the_export_lacks_is_named_with_what_there_is(
    tmp_path: Path, pictures: Path
) -> None:
    mapping = mapping_file(tmp_path, "words", source="sources", ratings={"one": {"if": "follow_1", "vq": "quality_1"}})
    with pytest.raises(EditLoopError) as refused:
        imported(tmp_path, EXPORTS / "words.json", mapping, pictures)
    first, second = str(refused.value).splitlines()
    assert "source = sources: no task of words.json has this key; there are instruction, source, first" in first
    assert "Did you mean source?" in first
    assert (
        "ratings.one.vq = quality_1: no answer of words.json has this control; there are follow_1, follow_2." in second
    )


MAPPINGS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no edits": ("words", {"images": None}, "give one of images and items"),
    "nothing answered": ("words", {"ratings": None}, "give one of ratings and preferences"),
    "no ranks": ("pairwise", {"ranks": None}, "preferences are no ratings: ranks states what they count as"),
    "ranks that rise": ("pairwise", {"ranks": {2: [2, 4]}}, r"ranks\.2: \[2, 4\]; write 2 ratings, the best first"),
    "too few ranks": ("pairwise", {"ranks": {3: [4, 2]}}, r"ranks\.3: \[4, 2\]; write 3 ratings"),
    "a rank of 5": ("pairwise", {"ranks": {2: [5, 1]}}, "less than or equal to 4"),
    "one axis": ("pairwise", {"preferences": {"if": "better"}}, "preferences: no control for vq; a vote has both axes"),
    "an unknown edit": ("rating", {"editors": {"three": "model_1"}}, "editors: no edit 'three'; images names one, two"),
    "a scale of preferences": ("pairwise", {"scale": "1..5"}, "scale is for ratings"),
    "no scale": ("rating", {"scale": "five"}, r"scale: five: no scale\. Write WORST\.\.BEST"),
    "a word off the scale": ("words", {"words": {"Poor": 0, "Good": 4}}, r"not on the scale 1\.\.4"),
    "an unknown key": ("words", {"image": {}}, r"image: unknown key \(did you mean images\?\)"),
}


@pytest.mark.parametrize("fault", MAPPINGS)
def test_a_mapping_that_does_not_fit_together_is_refused(tmp_path: Path, fault: str) -> None:
    name, change, words = MAPPINGS[fault]
    with pytest.raises(EditLoopError, match=words):
        read_mapping(mapping_file(tmp_path, name, **change))


def test_the_command_imports_and_says_what_was_left_out(tmp_path: Path, pictures: Path) -> None:
    mapping = mapping_file(tmp_path, "rating")
    arguments = [
        "ratings",
        "import",
        str(EXPORTS / "rating.csv"),
        "--format",
        "label-studio",
        "--images",
        str(pictures),
    ]
    arguments += ["--candidates", str(tmp_path / "c"), "--out", str(tmp_path / "j")]
    done = CliRunner().invoke(app, [*arguments, "--mapping", str(mapping)], catch_exceptions=False)
    assert "4 rows, 2 tasks, 7 judgements" in done.output
    assert "left out: " in done.output
    with pytest.raises(EditLoopError, match=r"--mapping is missing: .*docs/imports\.md"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_page_about_imports_has_every_key_of_a_mapping() -> None:
    text = (Path(__file__).parents[2] / "docs" / "imports.md").read_text()
    for key in LabelStudioMapping.model_fields:
        assert f"| `{key}` |" in text

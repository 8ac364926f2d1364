import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from annotation.formats import editreward_rows
from annotation.formats.editreward_import import import_pairs
from annotation.formats.editreward_rows import export_parquet, export_rows
from annotation.formats.judgements_folder import read_judgements
from annotation.formats.label_studio_export import export_label_studio
from components.dataset.declaration import DatasetParameters
from editloop.content import read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import Judgement
from editloop.errors import EditLoopError
from tests.unit.test_editreward_import import PUBLISHED


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)


def row(prompt, one, other, high, low):
    """A row as the public data has them: `one` is preferred; scores are (dimension 1, dimension 2)."""
    return {
        "prompt": prompt,
        "choice_dist": None,
        "confidence": None,
        "path_src": "k/source.png",
        "path1": f"k/{one}.png",
        "path2": f"k/{other}.png",
        "model1": one,
        "model2": other,
        "model1_dim1_score": high[0],
        "model1_dim2_score": high[1],
        "model1_overall_score": sum(high),
        "model2_dim1_score": low[0],
        "model2_dim2_score": low[1],
        "model2_overall_score": sum(low),
        "tie_case": sum(high) == sum(low),
    }


SCORES = {"ovis": (4, 2), "qwen": (2, 4), "step1x": (4, 2), "flux": (1, 1)}
PUBLIC = [
    row("Red.", "ovis", "qwen", (4, 2), (2, 4)),  # an overall tie whose axes disagree: twice
    row("Red.", "qwen", "ovis", (2, 4), (4, 2)),
    row("Red.", "ovis", "step1x", (4, 2), (4, 2)),  # a tie on both axes: once
    row("Red.", "ovis", "flux", (4, 2), (1, 1)),
    row("Red.", "qwen", "step1x", (2, 4), (4, 2)),
    row("Red.", "step1x", "qwen", (4, 2), (2, 4)),
    row("Red.", "qwen", "flux", (2, 4), (1, 1)),
    row("Red.", "step1x", "flux", (4, 2), (1, 1)),
    row("Blue.", "flux", "ovis", (3, 3), (2, 3)),
]


@pytest.fixture
def public(tmp_path):
    folder = tmp_path / "public"
    for seed, name in enumerate(["source", *SCORES]):
        picture(folder / "k" / f"{name}.png", seed)
    (folder / "train.json").write_text(json.dumps(PUBLIC))
    return folder


def essentials(rows, folder):
    """Rows by what they say: pictures by their pixels. Sides of a tie on both axes have no order."""

    def sides(one):
        both = [
            (
                one[f"model{k}"],
                one[f"model{k}_dim1_score"],
                one[f"model{k}_dim2_score"],
                one[f"model{k}_overall_score"],
                Image.open(folder / one[f"path{k}"]).tobytes(),
            )
            for k in (1, 2)
        ]
        return sorted(both) if both[0][1:3] == both[1][1:3] else both

    return sorted(
        str(
            (
                one["prompt"],
                one["tie_case"],
                one["choice_dist"],
                one["confidence"],
                sides(one),
                Image.open(folder / one["path_src"]).tobytes(),
            )
        )
        for one in rows
    )


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_public_rows_come_back_as_they_were(public, tmp_path):
    report = import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    assert report[:4] == (9, 2, 6, ())
    tasks = read_tasks(tmp_path / "c")
    export_rows(read_judgements(tmp_path / "j"), tasks, tmp_path / "c", tmp_path / "out")
    rows = lines(tmp_path / "out" / "rows.jsonl")
    assert essentials(rows, tmp_path / "out") == essentials(PUBLIC, public)
    import_pairs(tmp_path / "out" / "rows.jsonl", tmp_path / "c2", tmp_path / "j2")
    assert (tmp_path / "j2" / "judgements.jsonl").read_bytes() == (tmp_path / "j" / "judgements.jsonl").read_bytes()
    assert sorted(p.name for p in (tmp_path / "c2" / "images").iterdir()) == sorted(
        p.name for p in (tmp_path / "c" / "images").iterdir()
    )


def test_parquet_as_published_comes_back_as_it_was_in_several_files(public, tmp_path, monkeypatch):
    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    monkeypatch.setattr(editreward_rows, "ROWS_A_GROUP", 2)
    monkeypatch.setattr(editreward_rows, "MEGABYTES", 0.005)
    judgements = read_judgements(tmp_path / "j")
    report = export_parquet(judgements, read_tasks(tmp_path / "c"), tmp_path / "c", tmp_path / "out")
    assert report == (7, {})
    files = sorted((tmp_path / "out").glob("train-*.parquet"))
    assert len(files) > 1
    assert pq.ParquetFile(files[0]).metadata.row_group(0).num_rows == 2
    assert import_pairs(tmp_path / "out", tmp_path / "c2", tmp_path / "j2")[:4] == (7, 2, 6, ())
    assert (tmp_path / "j2" / "judgements.jsonl").read_bytes() == (tmp_path / "j" / "judgements.jsonl").read_bytes()
    assert {task.task_id: set(task.candidates) for task in read_tasks(tmp_path / "c2")} == {
        task.task_id: set(task.candidates) for task in read_tasks(tmp_path / "c")
    }
    for path in (tmp_path / "c" / "images").iterdir():
        assert path.read_bytes() == (tmp_path / "c2" / "images" / path.name).read_bytes()


def test_parquet_as_published_has_the_columns_of_the_published_data(public, tmp_path):
    """Our reader and writer could agree on wrong columns; the fixture is in the published layout."""
    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    export_parquet(read_judgements(tmp_path / "j"), read_tasks(tmp_path / "c"), tmp_path / "c", tmp_path / "out")
    ours, published = pq.read_schema(tmp_path / "out" / "train-00000.parquet"), pq.read_schema(PUBLISHED)
    features, theirs = (json.loads(schema.metadata[b"huggingface"])["info"]["features"] for schema in (ours, published))
    assert list(features) == ours.names
    for name in ours.names:
        assert ours.field(name).type == published.field(name).type
        assert features[name] == theirs[name]
    assert features["source_img"] == {"_type": "Image"}


def test_a_missing_picture_is_named_and_nothing_is_written(public, tmp_path):
    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    tasks, judgements = read_tasks(tmp_path / "c"), read_judgements(tmp_path / "j")
    missing = tmp_path / "c" / "images" / f"{tasks[0].source}.png"
    missing.unlink()
    for export in (export_rows, export_parquet, export_label_studio):
        with pytest.raises(EditLoopError, match=rf"{missing}: no such file, but a task names it"):
            export(judgements, tasks, tmp_path / "c", tmp_path / "out")
        assert not (tmp_path / "out").exists()


def test_imported_folders_are_what_the_dataset_stage_reads(public, tmp_path, monkeypatch):
    from components.dataset.stage import run_dataset

    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    for folder in ("c", "j"):
        read_manifest(tmp_path / folder, check=True)
    monkeypatch.setattr("editloop.datasets.build.commit_dataset", lambda *_, **__: {"commit": "0"})
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "r"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "s"))
    figures = run_dataset(
        tmp_path / "j", tmp_path / "c", tmp_path / "d", tmp_path / "version.json", DatasetParameters()
    )
    assert figures["groups"] == 2
    assert figures["pairs"] == 7  # 4 candidates of one task, 2 of the other
    assert figures["tie_rate"] == pytest.approx(3 / 7)


def test_contradicting_rows_are_different_people(public, tmp_path):
    rows = [*PUBLIC[:4], row("Red.", "flux", "ovis", (4, 4), (1, 2)), row("Red.", "flux", "qwen", (4, 4), (3, 3))]
    (public / "train.json").write_text("\n".join(map(json.dumps, rows)))
    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    judgements = read_judgements(tmp_path / "j")
    names = {one.candidate_id: one.editor for task in read_tasks(tmp_path / "c") for one in task.candidates}
    by = {
        who: {
            names[j.candidate_id]: (j.instruction_following, j.visual_quality) for j in judgements if j.annotator == who
        }
        for who in ("editreward-1", "editreward-2")
    }
    assert by["editreward-1"] == SCORES
    assert by["editreward-2"] == {"flux": (4, 4), "ovis": (1, 2), "qwen": (3, 3)}


def test_several_annotators_give_votes_and_confidence(public, tmp_path):
    import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j")
    tasks = read_tasks(tmp_path / "c")
    blue = next(task for task in tasks if task.instruction == "Blue.")
    by_editor = {one.editor: one.candidate_id for one in blue.candidates}

    def says(name, flux, ovis):
        return [
            Judgement.model_validate(
                {
                    "task_id": blue.task_id,
                    "candidate_id": by_editor[editor],
                    "annotator": name,
                    "if": i,
                    "vq": v,
                    "position": 0,
                    "annotation_id": 1,
                    "created_at": "2026-01-01T00:00:00Z",
                }
            )
            for editor, (i, v) in (("flux", flux), ("ovis", ovis))
        ]

    judgements = says("a", (4, 4), (1, 1)) + says("b", (3, 3), (2, 3)) + says("c", (1, 1), (4, 4))
    judgements += says("d", (2, 3), (3, 2))
    assert export_rows(judgements, tasks, tmp_path / "c", tmp_path / "out") == (5, {})
    rows = lines(tmp_path / "out" / "rows.jsonl")
    for one in rows:
        assert one["choice_dist"] == ([2, 1] if one["model1"] == "flux" else [1, 2])
        assert one["confidence"] == (0.5 if one["model1"] == "flux" else 0.25)
    assert [one["tie_case"] for one in rows].count(True) == 2
    missing = [task.model_copy(update={"candidates": task.candidates[:1]}) for task in tasks]
    left_out = {
        f"judgements of edits that {tmp_path / 'c'} does not have": 4,
        "judgements by somebody who rated no other edit of the task": 4,
    }
    for number, export in enumerate((export_rows, export_parquet)):
        report = export(judgements, missing, tmp_path / "c", tmp_path / f"none-{number}")
        assert report == (0, left_out)
        read_manifest(tmp_path / f"none-{number}", check=True)


def test_all_faults_of_all_rows_are_told_and_nothing_is_written(public, tmp_path):
    bad = [dict(one) for one in PUBLIC]
    bad[0]["model1_dim1_score"] = 5
    bad[1]["model1_overall_score"] = 7
    del bad[2]["prompt"]
    bad[3]["path2"] = "k/missing.png"
    bad[4]["path1"] = "../outside.png"
    bad[5].update(model1_dim1_score=1, model1_overall_score=3)
    bad[6]["tie_case"] = True
    bad[7]["path2"] = bad[7]["path1"]
    (public / "train.json").write_text(json.dumps(bad))
    with pytest.raises(EditLoopError) as caught:
        import_pairs(public / "train.json", tmp_path / "c", tmp_path / "j", strict=True)
    said = str(caught.value)
    for number, word in (
        (1, "model1_dim1_score = '5'"),
        (2, "add up to 6"),
        (3, "prompt"),
        (4, "no such file"),
        (5, "leaves the folder"),
        (6, "preferred"),
        (7, "tie_case"),
        (8, "same picture"),
    ):
        assert any(f"row {number}:" in one and word in one for one in said.splitlines()), (number, said)
    assert not (tmp_path / "c").exists()
    assert not (tmp_path / "j").exists()

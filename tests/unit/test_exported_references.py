"""Tasks of several source images in exports: written where a format has a place for them, else left out and said."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow.parquet as pq
import pytest

from annotation.formats.editreward_rows import export_parquet, export_rows
from annotation.formats.judgements_folder import read_judgements
from annotation.formats.label_studio_export import export_label_studio
from annotation.formats.rated_pairs import SEVERAL_IMAGES
from editloop.data.candidates_folder import read_tasks
from editloop.datasets.build import write_dataset
from editloop.datasets.hub_folder import export_hub_folder
from editloop.datasets.shards import shards
from editloop.datasets.splits import SPLITS
from tests.unit.test_references import judge, make_candidates_folder

TWO, ONE, EDITS, PEOPLE = 12, 8, 3, 2


@pytest.fixture
def judged(tmp_path: Path) -> tuple[Path, Path]:
    """The candidates folder and the judgements of 12 tasks of two images and 8 of one."""
    candidates = make_candidates_folder(tmp_path, with_references=TWO, without=ONE)
    return candidates, judge(candidates, tmp_path / "judged")


@pytest.mark.parametrize("export", [export_rows, export_parquet])
def test_formats_of_one_source_leave_such_tasks_out_and_say_so(
    judged: tuple[Path, Path], tmp_path: Path, export: Any
) -> None:
    candidates, judgements = judged
    report = export(read_judgements(judgements), read_tasks(candidates), candidates, tmp_path / "out")
    assert report.left_out == {SEVERAL_IMAGES: TWO * EDITS * PEOPLE}
    assert report.rows >= ONE * EDITS * PEOPLE
    plain = [task for task in read_tasks(candidates) if not task.references]
    told = [one for one in read_judgements(judgements) if one.task_id in {task.task_id for task in plain}]
    assert export(told, plain, candidates, tmp_path / "plain").rows == report.rows


def test_label_studios_tasks_show_them(judged: tuple[Path, Path], tmp_path: Path) -> None:
    candidates, judgements = judged
    tasks = {task.instruction + task.source: task for task in read_tasks(candidates)}
    export_label_studio(read_judgements(judgements), list(tasks.values()), candidates, tmp_path / "out")
    config = ElementTree.parse(tmp_path / "out/labelling.xml")
    assert "reference_2" in [image.get("name") for image in config.iter("Image")]
    shown = [row["data"] for row in json.loads((tmp_path / "out/tasks.json").read_text())]
    assert sum(bool(data["reference_2"]) for data in shown) == TWO
    for data in shown:
        (source,) = (task.source for task in tasks.values() if task.source in data["original"])
        references = tasks[data["instruction"] + source].references
        assert [one for one in references if one in data["reference_2"]] == list(references)
        assert all((tmp_path / "out/images" / f"{one}.png").is_file() for one in references)


def test_the_hubs_folder_has_them_as_pictures(judged: tuple[Path, Path], tmp_path: Path) -> None:
    candidates, judgements = judged
    write_dataset(judgements, candidates, tmp_path / "data", shard_megabytes=0.02)
    export_hub_folder(tmp_path / "data", tmp_path / "hub")
    for split in SPLITS:
        files = sorted((tmp_path / "hub/candidates").glob(f"{split}-*.parquet"))
        written = [row for path in files for row in pq.read_table(path).to_pylist()]
        rows = [
            row for path in shards(tmp_path / "data", "candidates", split) for row in pq.read_table(path).to_pylist()
        ]
        assert [one["references"] for one in written] == [
            [{"bytes": data, "path": None} for data in row["references"]] for row in rows
        ]
        features = json.loads(pq.read_schema(files[0]).metadata[b"huggingface"])["info"]["features"]
        assert features["references"] == {"feature": {"_type": "Image"}, "_type": "Sequence"}
        assert list(features) == pq.read_schema(files[0]).names
    assert "`references` (image 2" in (tmp_path / "hub/README.md").read_text()

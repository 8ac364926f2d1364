"""Reference images where people and models see them: sheets, reports, candidates without an editor, selection."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.candidates.declaration import CandidatesParameters
from components.candidates.stage import run_candidates
from editloop.content import read_manifest
from editloop.data.candidates_folder import read_tasks
from editloop.data.edits_file import read_edits
from editloop.data.picture_file import file_picture_sha256, picture_sha256
from editloop.datasets.preference_groups import PreferenceGroup
from editloop.errors import EditLoopError
from editloop.pages.contact_sheet import CELL, GAP, contact_sheet
from editloop.scoring.curation.page import _example
from editloop.scoring.curation.triples import Triple
from editloop.selection.pool import read_pool
from editloop.studies.claims import pairs
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from editloop.studies.world.two_sources import write_transfers
from pipelines.report import write_report


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    """An edits folder of three tasks with a reference and one without, with two edits each."""
    write_transfers(tmp_path / "drawn/pairs", 3, seed=0)
    write_edits(tmp_path / "drawn/scenes", 1, seed=0)
    add_candidates(tmp_path / "drawn", tmp_path / "edits", seed=0, per_task=2)
    return tmp_path / "edits"


def flat(level: int) -> np.ndarray:
    return np.full((8, 8, 3), level, np.uint8)


def test_a_sheet_has_a_column_for_each_further_image_of_a_task() -> None:
    columns = {"source": [flat(10), flat(20)], "now": [flat(30), flat(40)]}
    plain = contact_sheet(["a", "b"], columns)
    assert np.array_equal(plain, contact_sheet(["a", "b"], columns, references=[(), ()])), "none is no column"
    sheet = np.asarray(contact_sheet(["a", "b"], columns, references=[(), (flat(50), flat(60))]))
    assert sheet.shape[1] == plain.width + 2 * (CELL + GAP)
    places = {level: np.argwhere((sheet == level).all(-1)) for level in range(10, 70, 10)}
    assert [len(places[level]) for level in places] == [CELL * CELL] * 6
    tops, lefts = zip(*(places[level].min(axis=0).tolist() for level in (20, 50, 60, 40)), strict=True)
    assert len(set(tops)) == 1, "one row a task"
    assert np.diff(lefts).tolist() == [CELL + GAP] * 3, "source, image 2, image 3, edit"
    assert places[10].min(axis=0)[1] == lefts[0]
    assert places[30].min(axis=0)[1] == lefts[3], "a task without references leaves their places empty"


def test_the_report_shows_references_beside_their_sources(tmp_path: Path) -> None:
    data = tmp_path / "report-data"
    for name in ("judged", "contact-sheet"):
        (data / name).mkdir(parents=True)
        for level in range(6):
            Image.fromarray(flat(level)).save(data / name / f"{level}.png")
    candidates = [{"image": f"judged/{level}.png", "editor": "e", "if": 3.0, "vq": 2.0} for level in (3, 4)]
    task = {"instruction": "put it", "task": "put", "source": "judged/0.png", "candidates": candidates}
    two = task | {"references": ["judged/1.png", "judged/2.png"]}
    (data / "judged.json").write_text(json.dumps({"tasks": [task, two]}))
    edit = {name: f"contact-sheet/{level}.png" for level, name in enumerate(("source", "base", "tuned"))}
    edit |= {"instruction": "put it", "references": ["contact-sheet/5.png"]}
    (data / "contact-sheet.json").write_text(json.dumps({"edits": [edit]}))
    (tmp_path / "summary.json").write_text(json.dumps({"seconds": 1}))
    html = write_report(tmp_path).read_text()
    assert html.count('alt="image 2"') == 2
    assert html.count('alt="image 3"') == 1
    assert html.count("image 1: source</figure>") == 2
    assert len(re.findall("(?<!1: )source</figure>", html)) == 1, "the task of one image calls it the source"
    before_after = html[html.index("Before and after") : html.index("What the experts saw")]
    order = [before_after.index(text) for text in ("image 1: source", "image 2", "before: put it")]
    assert order == sorted(order)


def test_edits_that_are_made_already_need_no_editor(edits: Path, tmp_path: Path) -> None:
    given = CandidatesParameters(editor="no-such-editor", per_task=0)
    counts = run_candidates(edits, tmp_path / "candidates", given)
    assert counts == {"tasks": 4, "candidates": 8}
    tasks = {task.name: task for task in read_tasks(tmp_path / "candidates")}
    files = read_manifest(tmp_path / "candidates")["files"]
    for row in read_edits(edits):
        task = tasks[row.id]
        assert [one.image for one in task.candidates] == [file_picture_sha256(one.image) for one in row.candidates]
        assert [one.editor for one in task.candidates] == [one.editor for one in row.candidates]
        assert {f"images/{one}.png" for one in (task.source, *task.references, task.target)} <= files.keys()
    with pytest.raises(EditLoopError, match="no row has `candidates`, and per_task = 0"):
        run_candidates(tmp_path / "drawn/scenes", tmp_path / "none", given)
    assert not (tmp_path / "none").exists()


def test_a_pool_s_groups_have_the_references(edits: Path, tmp_path: Path) -> None:
    run_candidates(edits, tmp_path / "candidates", CandidatesParameters(per_task=0))
    tasks, asked = read_tasks(tmp_path / "candidates"), list[Any]()
    model: Any = SimpleNamespace(settings=SimpleNamespace(side=None), states=lambda groups: asked.extend(groups) or [0])
    read_pool(tmp_path / "candidates", tasks, model)
    assert [len(group.references) for group in asked] == [1, 1, 1, 0]
    for task, group in zip(tasks, asked, strict=True):
        assert tuple(map(picture_sha256, group.references)) == task.references


def test_the_page_of_curated_edits_shows_references(edits: Path) -> None:
    rows = read_edits(edits)
    triples = [
        Triple(row.id, row.task, row.instruction, row.source, row.candidates[0].image, "e", row.references)
        for row in rows
    ]
    assert [len(_example(triple, 1.0, 0.5)["references"]) for triple in triples] == [1, 1, 1, 0]


def test_the_best_labelled_edits_keep_their_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = [np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8) for seed in range(8)]

    def group(name: str, source: int, *references: int) -> PreferenceGroup:
        return PreferenceGroup(
            task_id=name,
            task_type="put",
            instruction="put it",
            candidates=("a", "b"),
            editors=("e", "e"),
            source=pictures[source],
            target=None,
            edits=pictures[6:],
            ratings=np.array([[1, 1], [4, 4]], np.float32),
            weights=np.zeros((2, 2, 2), np.float32),
            references=[pictures[index] for index in references],
        )

    groups = {"train": [group("one", 0, 1, 2)], "validation": [group("two", 3)]}
    monkeypatch.setattr(pairs, "read_groups", lambda dataset, split, targets: groups[split])
    assert pairs.write_best_labelled(tmp_path, tmp_path / "best") == 2
    first, second = read_edits(tmp_path / "best")
    assert [file_picture_sha256(path) for path in first.references] == [picture_sha256(pictures[k]) for k in (1, 2)]
    assert second.references == ()

"""A campaign about tasks of two source images in a real Label Studio: from the edits file to a dataset's groups."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import requests
from typer.testing import CliRunner

from annotation.campaigns.label_studio import LabelStudioApi, read_project
from annotation.campaigns.project import live_tasks
from annotation.campaigns.training import training_pages
from components.candidates.declaration import CandidatesParameters
from components.candidates.stage import run_candidates
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import picture_sha256, read_picture
from editloop.data.vocabulary import Page
from editloop.datasets.preference_groups import read_groups
from editloop.datasets.splits import SPLITS
from editloop.datasets.versions import versions_with
from editloop.studies.world.scenes import write_edits
from editloop.studies.world.stand_ins import add_candidates
from editloop.studies.world.two_sources import write_transfers
from pipelines.cli import app
from pipelines.report_data import write_judged
from tests.answered_campaigns import PEOPLE, Opened, agree, open_one

PAIRS, SCENES = 8, 3
LEAD = "lead-of-two"


@pytest.fixture
def candidates(tmp_path: Path) -> Path:
    """Tasks with a reference, and a few without, in one edits folder; three stand-ins edit each."""
    write_transfers(tmp_path / "drawn/pairs", PAIRS, seed=5)
    write_edits(tmp_path / "drawn/scenes", SCENES, seed=6)
    add_candidates(tmp_path / "drawn", tmp_path / "edits", seed=0)
    run_candidates(tmp_path / "edits", tmp_path / "candidates", CandidatesParameters(per_task=0))
    return tmp_path / "candidates"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    return tmp_path / "repo"


def task_data(opened: Opened, project: str) -> dict[str, dict[str, str]]:
    """What Label Studio has of each page, by its key: of the campaign, of its training, or of the lead's queue.

    The project's page has a place for the reference.
    """
    record, api = opened.record(), LabelStudioApi(opened.settings)
    campaign = {"campaign": record, "training": record.training, "queue": record.queue}[project].campaign
    assert 'value="$reference_2"' in read_project(api, campaign.project_id, campaign.name)["label_config"]
    return {row["data"]["key"]: row["data"] for row in live_tasks(api, campaign, "task_only")}


def check_shown(opened: Opened, pages: dict[str, Page], data: dict[str, dict[str, str]]) -> None:
    """Each page shows its source as image 1 and its reference as image 2, as the pixels that they are."""
    session = requests.Session()
    session.headers["Authorization"] = f"Token {opened.settings.require('label_studio_token')}"
    for key, shown in data.items():
        page = pages[key]
        images = dict(zip(("original", "reference_2"), (page.source, *page.references), strict=False))
        assert bool(shown["reference_2"]) == bool(page.references)
        for name, digest in images.items():
            reply = session.get(f"{opened.settings.label_studio_url}{shown[name]}", timeout=60)
            assert picture_sha256(read_picture(reply.content, name)) == digest


def test_experts_see_both_images_and_the_dataset_has_them(
    service_environment: Any, candidates: Path, repository: Path, tmp_path: Path
) -> None:
    wanted = {"gold_share": 0.1, "repeat_share": 0.1, "norming_pages": 1, "training_pages": 1}
    opened = open_one(candidates, tmp_path / "campaign", "two sources", lead=LEAD, training_required=False, **wanted)
    tasks = {task.task_id: task for task in read_tasks(candidates)}
    pages = opened.pages | training_pages(opened.record())
    assert {page.kind for page in pages.values()} == {"task", "gold", "repeat", "norming", "training"}
    assert all(page.references == tasks[page.task_id].references for page in pages.values())
    assert {len(page.references) for page in pages.values()} == {0, 1}
    assert opened.campaign.references == 1
    check_shown(opened, pages, task_data(opened, "campaign"))
    check_shown(opened, pages, task_data(opened, "training"))

    disputed = next(key for key, page in opened.pages.items() if page.kind == "task" and page.references)
    number = list(opened.pages).index(disputed)

    def rate(name: str, page: int, place: int) -> dict[str, int]:
        fair = agree(name, page, place)
        return {axis: 5 - level for axis, level in fair.items()} if (name, page) == (PEOPLE[0], number) else fair

    opened.answer(rate)
    done = CliRunner().invoke(app, ["campaign", "adjudicate", opened.campaign.key, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["conflicts"] == 1
    queued = task_data(opened, "queue")
    assert list(queued) == [disputed]
    check_shown(opened, pages, queued)

    run_collect(opened.folder, candidates, tmp_path / "judgements", CollectParameters())
    quality = (tmp_path / "judgements/page.html").read_text()
    assert "image 1: source" in quality
    assert 'alt="image 2"' in quality
    run_dataset(tmp_path / "judgements", candidates, tmp_path / "data", tmp_path / "version.json", DatasetParameters())
    groups = list(chain.from_iterable(read_groups(tmp_path / "data", split) for split in SPLITS))
    asked = {page.task_id for page in opened.pages.values() if page.kind == "task"}
    assert {group.task_id for group in groups} == asked
    for group in groups:
        references = tasks[group.task_id].references
        assert tuple(picture_sha256(reference) for reference in group.references) == references
        for reference in references:
            (version,) = versions_with(str(repository), reference)
            assert version.candidates_sha256 == opened.campaign.candidates_sha256
    assert {len(group.references) for group in groups} == {0, 1}

    write_judged(tmp_path / "report-data", candidates=candidates, judgements=tmp_path / "judgements")
    judged = json.loads((tmp_path / "report-data/judged.json").read_text())["tasks"]
    (shown,) = [task for task in judged if task["task"] == "put"][:1]
    assert (tmp_path / "report-data" / shown["references"][0]).is_file()

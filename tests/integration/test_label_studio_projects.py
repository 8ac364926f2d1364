"""The export for Label Studio in the real Label Studio: its own import takes it, and shows every picture and rating."""

import json
from pathlib import Path

import pytest
import requests

from annotation.campaigns.campaign import connect
from annotation.campaigns.label_studio import LabelStudioApi, list_projects
from annotation.campaigns.labelling import ratings_of
from annotation.campaigns.pictures import NO_TASKS
from annotation.campaigns.project import make_project
from annotation.formats.label_studio_export import export_label_studio
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import read_picture
from editloop.data.vocabulary import Judgement
from infra.settings import service_settings


def test_projects_are_listed_beyond_the_first_page(service_environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotation.campaigns.label_studio.PROJECTS", 2)
    api = LabelStudioApi(service_settings())
    made = {make_project(api, f"listed {number}", "", "<View></View>") for number in range(5)}
    try:
        projects = list(list_projects(api, "id", "title"))
        ids = [project["id"] for project in projects]
        assert made <= set(ids)
        assert len(ids) == len(set(ids))
        assert all(set(project) >= {"id", "title"} for project in projects)
    finally:
        for project in made:
            api.call("DELETE", f"/api/projects/{project}/")


def test_a_project_imports_the_file_and_shows_every_picture_and_rating(service_environment, make_candidates):
    settings, candidates = service_settings(), make_candidates(2, candidates=2)
    tasks = read_tasks(candidates)
    judgements = [
        Judgement.model_validate(
            {"task_id": task.task_id, "candidate_id": candidate.candidate_id, "annotator": who, "if": 3, "vq": level}
            | {"position": 0, "annotation_id": 1, "created_at": "2026-01-01T00:00:00Z"}
        )
        for task in tasks
        for candidate in task.candidates
        for who, level in (("ada", 2), ("bo", 4))
    ]
    output = Path(settings.require("pictures")) / "exported ratings"
    export_label_studio(judgements, tasks, candidates, output)
    client = connect(settings)
    project = client.projects.create(title="ratings", label_config=(output / "labelling.xml").read_text()).id
    client.import_storage.local.create(
        project=project, path=str(output / "images"), regex_filter=NO_TASKS, use_blob_urls=True
    )
    logged_in = requests.Session()
    logged_in.headers["Authorization"] = f"Token {settings.require('label_studio_token')}"
    with (output / "tasks.json").open("rb") as file:
        address = f"{settings.label_studio_url}/api/projects/{project}/import"
        sent = logged_in.post(address, files={"tasks.json": ("tasks.json", file, "application/json")}, timeout=120)
    assert sent.status_code == 201, sent.text
    assert (sent.json()["task_count"], sent.json()["annotation_count"]) == (2, 4)
    rows = {row["data"]["key"]: row["data"] for row in json.loads((output / "tasks.json").read_text())}
    for task in client.tasks.list(project=project):
        whole = logged_in.get(f"{settings.label_studio_url}/api/tasks/{task.id}/", timeout=60).json()
        for name in ("original", "image_1", "image_2"):
            shown = whole["data"][name]
            seen = logged_in.get(shown if shown.startswith("http") else settings.label_studio_url + shown, timeout=60)
            assert seen.status_code == 200, seen.text
            assert read_picture(seen.content, name)
        assert whole["data"]["key"] in rows
        ratings = [ratings_of(annotation["result"], 2) for annotation in whole["annotations"]]
        assert sorted(str(rating) for rating in ratings) == [str([{"if": 3, "vq": level}] * 2) for level in (2, 4)]

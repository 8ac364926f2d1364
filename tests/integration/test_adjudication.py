"""The lead's queue in a real Label Studio: conflicts in it, votes hidden until the lead has decided, decisions kept."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.campaign import Campaign, connect, load_pages, read_campaign
from annotation.campaigns.closing import close_campaign, readiness
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.lead_queue import snapshot
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_record
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from editloop.content import read_manifest
from editloop.data.vocabulary import Page
from editloop.errors import EditLoopError
from editloop.lineage.step import run_step
from infra.settings import ServiceSettings, service_settings
from pipelines.campaign_status import campaign_status
from pipelines.catalogue import STAGES
from pipelines.cli import app

PEOPLE, LEAD = ["voter-1", "voter-2"], "voters-lead"
NOTE = "The diamond did move, only its edge is soft."


class Disputed(NamedTuple):
    """A campaign of four pages, answered by everybody, of which two are in conflict."""

    campaign: Campaign
    folder: Path
    candidates: Path
    settings: ServiceSettings
    pages: dict[str, Page]
    keys: list[str]
    """The page in conflict on a level, the one in conflict on an order, and two on which all agree."""

    def api(self, name: str) -> LabelStudioApi:
        return LabelStudioApi(self.settings, read_accounts(self.settings)[name].token)

    def queue(self) -> Campaign:
        queue = read_record(self.settings, self.campaign.key).queue
        assert queue is not None
        return queue.campaign

    def tasks(self) -> dict[str, int]:
        """The queue's tasks by page key."""
        return {key: rows[0].id for key, rows in task_rows(self.settings, self.queue()).items()}

    def decide(self, key: str, levels: list[dict[str, int]], note: str | None) -> int:
        given = result_of(levels)
        if note:
            given.append({"from_name": "note", "to_name": "original", "type": "textarea", "value": {"text": [note]}})
        path = f"/api/tasks/{self.tasks()[key]}/annotations/"
        return int(self.api(LEAD).call("POST", path, json={"result": given, "lead_time": 5.0})["id"])


def levels(*pairs: tuple[int, int]) -> list[dict[str, int]]:
    return [{"if": one, "vq": other} for one, other in pairs]


SAME = levels((1, 2), (2, 3), (4, 4))
FAR = levels((3, 2), (2, 3), (4, 4))
AHEAD, BEHIND = levels((3, 3), (2, 2), (4, 4)), levels((2, 2), (3, 3), (4, 4))


@pytest.fixture
def disputed(service_environment, make_candidates, tmp_path, request) -> Disputed:
    candidates = make_candidates(4, seed=sum(map(ord, request.node.name)), candidates=3)
    folder, name = tmp_path / "campaign", request.node.name[:40]
    run_step(
        STAGES["annotate"],
        pipeline_run=name,
        inputs={"candidates": candidates},
        outputs={"output": folder},
        parameters={
            "name": name,
            "annotators": PEOPLE,
            "overlap": 2,
            "lead": LEAD,
            "gold_share": 0.0,
            "repeat_share": 0.0,
        },
        tags={"uri.candidates": str(candidates), "uri.output": str(folder)},
    )
    settings, pages = service_settings(), load_pages(folder)
    one = Disputed(read_campaign(folder), folder, candidates, settings, pages, list(pages))
    votes = [(SAME, FAR), (AHEAD, BEHIND), (SAME, SAME), (SAME, levels((2, 2), (2, 3), (4, 3)))]
    rows = task_rows(settings, one.campaign)
    for key, given in zip(one.keys, votes, strict=True):
        for voter, said in zip(PEOPLE, given, strict=True):
            body = {"result": result_of(said), "lead_time": 9.0}
            one.api(voter).call("POST", f"/api/tasks/{rows[key][0].id}/annotations/", json=body)
    return one


def adjudicate(one: Disputed) -> dict[str, Any]:
    done = CliRunner().invoke(app, ["campaign", "adjudicate", one.campaign.key, "--json"], catch_exceptions=False)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_queue_has_the_conflicts_and_opening_it_again_adds_nothing(disputed):
    for _ in range(2):
        state = adjudicate(disputed)
        assert {key: state[key] for key in ("conflicts", "tasks", "decided")} == {
            "conflicts": 2,
            "tasks": 2,
            "decided": 0,
        }
        rows = task_rows(disputed.settings, disputed.queue())
        assert set(rows) == set(disputed.keys[:2])
        assert all(len(found) == 1 for found in rows.values())
    projects = [
        project
        for project in connect(disputed.settings).projects.list()
        if project.title.startswith(disputed.campaign.name[:30])
    ]
    assert len(projects) == 2, "the campaign and its queue"


def test_votes_are_hidden_until_the_lead_has_decided_and_stay_as_they_were(disputed, tmp_path):
    adjudicate(disputed)
    before = LabelStudioApi(disputed.settings).fetch("GET", f"/api/projects/{disputed.campaign.project_id}/export")
    first, second = disputed.keys[:2]
    for _ in range(2):
        lead = disputed.api(LEAD).call("GET", f"/api/projects/{disputed.queue().project_id}/next")
        assert lead["predictions"] == []
        seen = json.dumps({key: lead[key] for key in ("data", "predictions", "annotations")})
        assert not any(name in seen for name in PEOPLE)
        assert set(lead["data"]) == {"key", "instruction", "original", "image_1", "image_2", "image_3"}
        adjudicate(disputed)
    disputed.decide(first, levels((3, 2), (2, 3), (4, 4)), NOTE)
    assert adjudicate(disputed)["decided"] == 1
    for _ in range(2):
        shown = disputed.api(LEAD).call("GET", f"/api/tasks/{disputed.tasks()[first]}")["predictions"]
        votes = {one["model_version"]: {item["from_name"]: item["value"] for item in one["result"]} for one in shown}
        assert len(shown) == len(votes) == 2
        assert votes == {
            voter: {item["from_name"]: item["value"] for item in result_of(said)}
            for voter, said in zip(PEOPLE, (SAME, FAR), strict=True)
        }
        adjudicate(disputed)
    assert disputed.api(LEAD).call("GET", f"/api/tasks/{disputed.tasks()[second]}")["predictions"] == []
    following = disputed.api(LEAD).call("GET", f"/api/projects/{disputed.queue().project_id}/next")
    assert following["data"]["key"] == second
    after = LabelStudioApi(disputed.settings).fetch("GET", f"/api/projects/{disputed.campaign.project_id}/export")
    assert before == after


def test_decisions_and_reasons_stand_beside_the_votes(disputed, tmp_path):
    adjudicate(disputed)
    first, second = disputed.keys[:2]
    run_collect(disputed.folder, disputed.candidates, tmp_path / "before", CollectParameters())
    number = disputed.decide(first, levels((3, 2), (2, 3), (4, 1)), NOTE)
    disputed.decide(second, levels((1, 1), (1, 1), (1, 1)), None)
    metrics = run_collect(disputed.folder, disputed.candidates, tmp_path / "after", CollectParameters())
    assert metrics["decisions"] == 3, "an answer without a reason decides nothing"
    assert metrics["conflicts"] == 2
    decided = [json.loads(line) for line in (tmp_path / "after" / "decisions.jsonl").read_text().splitlines()]
    page = disputed.pages[first]
    assert {(row["candidate_id"], row["if"], row["vq"]) for row in decided} == {
        (candidate, *pair) for candidate, pair in zip(page.candidates, [(3, 2), (2, 3), (4, 1)], strict=True)
    }
    assert {(row["lead"], row["reason"], row["annotation_id"]) for row in decided} == {(LEAD, NOTE, number)}
    one, other = (read_manifest(tmp_path / name)["files"]["judgements.jsonl"] for name in ("before", "after"))
    assert one == other, "no vote is overwritten"


def test_a_decision_after_closing_asks_for_a_new_closing(disputed, tmp_path):
    adjudicate(disputed)
    settings, campaign = disputed.settings, disputed.campaign

    def close():
        record = read_record(settings, campaign.key)
        live = snapshot(settings, record, disputed.pages)
        return close_campaign(record, readiness(settings, record, disputed.pages, live), live, by="lea")

    before = close()
    run_step(
        STAGES["collect"],
        pipeline_run="decided-late",
        inputs={"campaign": disputed.folder, "candidates": disputed.candidates},
        outputs={"output": tmp_path / "judgements"},
        parameters={"answers_sha256": before.answers_sha256},
    )
    number = disputed.decide(disputed.keys[0], levels((3, 2), (2, 3), (4, 1)), NOTE)
    found = campaign_status(campaign.key)
    assert not found["closed"]
    assert found["edited"] == f"1 added (annotation {number})"
    assert found["adjudication"] | {"url": ""} == {"url": "", "tasks": 2, "decided": 1}
    after = close()
    metrics = run_collect(
        disputed.folder, disputed.candidates, tmp_path / "new", CollectParameters(answers_sha256=after.answers_sha256)
    )
    assert metrics["decisions"] == 3


def test_a_task_that_comes_into_conflict_joins_the_queue(disputed):
    adjudicate(disputed)
    third = disputed.keys[2]
    task = task_rows(disputed.settings, disputed.campaign)[third][0].id
    far = {"result": result_of(FAR), "lead_time": 9.0}
    disputed.api(PEOPLE[1]).call("POST", f"/api/tasks/{task}/annotations/", json=far)
    assert adjudicate(disputed)["tasks"] == 3


def test_without_a_lead_there_is_no_queue(disputed):
    run_step(
        STAGES["annotate"],
        pipeline_run="leaderless",
        inputs={"candidates": disputed.candidates},
        outputs={"output": disputed.folder},
        parameters={"name": "leaderless", "annotators": PEOPLE, "gold_share": 0.0, "repeat_share": 0.0},
    )
    with pytest.raises(EditLoopError, match="has no lead who could decide"):
        CliRunner().invoke(app, ["campaign", "adjudicate", str(disputed.folder)], catch_exceptions=False)

"""A campaign in a real Label Studio: opened twice, answered, disturbed, read."""

import json

import pytest
import requests

from annotation import experts
from annotation.accounts import ensure_annotators, read_accounts
from annotation.campaign import Campaign, connect, find_campaigns, read_tasks, task_rows
from annotation.labelling import result_of
from components.annotate.stage import annotate
from components.collect.stage import collect
from infra.content import read_manifest
from infra.errors import EditLoopError
from infra.settings import service_settings

PEOPLE = ["expert-1", "expert-2", "expert-3"]


@pytest.fixture
def settings(service_environment):
    return service_settings()


@pytest.fixture
def client(settings):
    return connect(settings)


def opened(folder):
    return Campaign.model_validate_json((folder / "campaign.json").read_text())


def submit(settings, account, task, result, **more):
    reply = requests.post(
        f"{settings.label_studio_url}/api/tasks/{task}/annotations/",
        json={"result": result, **more},
        headers={"Authorization": f"Token {account.token}"},
        timeout=60,
    )
    assert reply.status_code == 201, reply.text


def test_opening_twice_is_opening_once(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(5, seed=11)
    for output in ("first", "second"):
        annotate(candidates, tmp_path / output, campaign="twice", annotators=PEOPLE, overlap=2)
    one, two = opened(tmp_path / "first"), opened(tmp_path / "second")
    assert one == two
    assert [found.key for found in find_campaigns(client, settings)].count(one.key) == 1
    assert client.projects.get(one.project_id).maximum_annotations == 2
    tasks = task_rows(client, one)
    assert sorted(rows[0][1]["task"] for rows in tasks.values()) == sorted(
        task.task_id for task in read_tasks(candidates)
    )
    annotate(candidates, tmp_path / "third", campaign="twice", annotators=PEOPLE, overlap=3)
    assert opened(tmp_path / "third").key != one.key


def test_an_import_that_was_cut_off_is_mended(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(6, seed=12)
    annotate(candidates, tmp_path / "campaign", campaign="cut", annotators=PEOPLE)
    campaign = opened(tmp_path / "campaign")
    rows = [rows[0] for rows in task_rows(client, campaign).values()]
    for number, _ in rows[:2]:
        client.tasks.delete(str(number))
    client.projects.import_tasks(campaign.project_id, request=[{"data": data} for _, data in rows[2:4]])
    before = {key: found[0][0] for key, found in task_rows(client, campaign).items()}
    assert any(len(found) == 2 for found in task_rows(client, campaign).values())
    annotate(candidates, tmp_path / "campaign", campaign="cut", annotators=PEOPLE)
    after = {key: [number for number, _ in found] for key, found in task_rows(client, campaign).items()}
    assert len(after) == 6
    assert all(len(numbers) == 1 for numbers in after.values())
    assert all(after[key] == [number] for key, number in before.items()), "the tasks that were there stay"


def test_simulated_experts_answer_once_and_the_same_each_time(settings, make_candidates, tmp_path):
    candidates = make_candidates(6, seed=13)
    judged = []
    for name in ("one", "two"):
        annotate(candidates, tmp_path / name, campaign=name, annotators=[*PEOPLE, "expert-4"], overlap=3)
        with pytest.raises(EditLoopError, match=r"0 of 6 tasks have 3 annotators, 0 of 18 answers"):
            collect(tmp_path / name, candidates, tmp_path / f"{name}-judgements")
        assert not (tmp_path / f"{name}-judgements").exists()
        file = tmp_path / name / "campaign.json"
        assert experts.answer(file, candidates, settings=settings, seed=3) == 18
        assert experts.answer(file, candidates, settings=settings, seed=3) == 0
        metrics = collect(tmp_path / name, candidates, tmp_path / f"{name}-judgements")
        assert (metrics["tasks"], metrics["judgements"], metrics["annotators"]) == (6, 72, 4)
        judged.append(read_manifest(tmp_path / f"{name}-judgements", check=True)["facts"])
    assert judged[0]["ratings_sha256"] == judged[1]["ratings_sha256"]
    assert judged[0]["campaign_key"] != judged[1]["campaign_key"]
    export = json.loads((tmp_path / "one-judgements" / "export.json").read_text())
    people = [{answer["completed_by"] for answer in row["annotations"]} for row in export]
    assert all(len(found) == 3 for found in people), "three different people a task"


def test_resumed_answers_equal_unbroken_ones(settings, make_candidates, tmp_path, monkeypatch):
    candidates = make_candidates(4, seed=14)
    submit_one, given = experts._submit, []

    def dies_after_five(*arguments):
        if len(given) >= 5:
            raise KeyboardInterrupt
        given.append(arguments)
        submit_one(*arguments)

    facts = []
    for name in ("broken", "whole"):
        annotate(candidates, tmp_path / name, campaign=name, annotators=PEOPLE, overlap=len(PEOPLE))
        if name == "broken":
            monkeypatch.setattr(experts, "_submit", dies_after_five)
            with pytest.raises(KeyboardInterrupt):
                experts.answer(tmp_path / name / "campaign.json", candidates, settings=settings)
            monkeypatch.setattr(experts, "_submit", submit_one)
        experts.answer(tmp_path / name / "campaign.json", candidates, settings=settings)
        collect(tmp_path / name, candidates, tmp_path / f"{name}-judgements")
        facts.append(read_manifest(tmp_path / f"{name}-judgements")["facts"])
    assert facts[0]["ratings_sha256"] == facts[1]["ratings_sha256"]
    assert facts[0]["answers"] == dict.fromkeys(PEOPLE, 4)


def test_skipped_unfinished_and_foreign_answers_are_counted_and_not_used(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(2, seed=15)
    ensure_annotators(client, ["a-guest"], settings)
    annotate(candidates, tmp_path / "campaign", campaign="disturbed", annotators=PEOPLE[:1], overlap=1)
    campaign, accounts = opened(tmp_path / "campaign"), read_accounts(settings)
    first, second = (rows[0][0] for rows in task_rows(client, campaign).values())
    expert, ones = accounts["expert-1"], result_of([{"if": 1, "vq": 1}] * 4)
    submit(settings, accounts["a-guest"], first, ones)
    submit(settings, expert, first, [], was_cancelled=True)
    submit(settings, expert, first, result_of([{"if": 2, "vq": 3}] * 3))
    submit(settings, expert, second, ones)
    with pytest.raises(EditLoopError, match=r"1 of 2 tasks .* 1 were skipped and 1 lack a rating"):
        collect(tmp_path / "campaign", candidates, tmp_path / "judgements")
    submit(settings, expert, first, result_of([{"if": 4, "vq": 2}] * 4))
    metrics = collect(tmp_path / "campaign", candidates, tmp_path / "judgements")
    assert metrics["judgements"] == 8
    rows = [json.loads(line) for line in (tmp_path / "judgements" / "judgements.jsonl").read_text().splitlines()]
    assert {(row["if"], row["vq"]) for row in rows} == {(1, 1), (4, 2)}
    summary = json.loads((tmp_path / "judgements" / "summary.json").read_text())
    assert (summary["skipped"], summary["unfinished"], summary["others"]) == (1, 1, 1)


def test_a_config_changed_in_label_studio_is_not_taken_for_ours(client, make_candidates, tmp_path):
    candidates = make_candidates(2, seed=16)
    annotate(candidates, tmp_path / "campaign", campaign="changed", annotators=PEOPLE)
    project = opened(tmp_path / "campaign").project_id
    config = client.projects.get(project).label_config
    client.projects.update(project, label_config=config.replace("3 with a slip", "3 good"))
    with pytest.raises(EditLoopError, match="was changed in Label Studio"):
        annotate(candidates, tmp_path / "again", campaign="changed", annotators=PEOPLE)


def test_people_of_a_team_must_have_joined(client, settings, make_candidates, tmp_path, monkeypatch):
    monkeypatch.delenv("EDITLOOP_ANNOTATORS_FILE")
    with pytest.raises(EditLoopError, match=r"Not in Label Studio yet: someone@team\.example"):
        annotate(make_candidates(2), tmp_path / "x", campaign="team", annotators=["someone@team.example"], overlap=1)
    assert not (tmp_path / "x").exists()


def test_label_studio_out_of_reach_is_told(monkeypatch):
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_TOKEN", "none")
    with pytest.raises(EditLoopError, match=r"http://127\.0\.0\.1:9 does not answer"):
        connect(service_settings())

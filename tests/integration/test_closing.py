"""Closing a campaign in a real Label Studio: below its gate, accepted, edited afterwards, judged anew."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.campaign import connect
from annotation.campaigns.closing import close_campaign, readiness
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import REASONS, result_of
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import Acceptance
from annotation.lineage_links import judgement_links
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.content import read_manifest, sha256_json
from editloop.errors import EditLoopError
from editloop.lineage import registry, tracking
from editloop.lineage.chain import Chain, Gap
from editloop.lineage.run_claim import claim_run
from editloop.lineage.step import run_step
from pipelines import reconcile as reconciling
from pipelines.backend import parse_arguments
from pipelines.catalogue import STAGES, read_run_settings
from pipelines.cli import app
from pipelines.preflight import plan_run
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.run_status import RunStatus
from tests.answered_campaigns import PEOPLE, agree, disagree

REASON = next(iter(REASONS))


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


def command(*words: str) -> Any:
    return CliRunner().invoke(app, ["campaign", *words], catch_exceptions=True)


def test_below_its_gate_a_campaign_does_not_close_unless_somebody_says_why(opened, tmp_path):
    one = opened("below", alpha_if=0.6, alpha_vq=0.5)
    one.answer(disagree)
    ready = readiness(one.settings, one.record(), one.pages, one.live())
    assert ready.progress.complete
    assert ready.alpha["if"] < 0 < ready.alpha["vq"]
    with pytest.raises(EditLoopError, match=r"Instruction following: alpha -\d\.\d\d, gate 0\.60\)\. 4 tasks are in"):
        one.close()
    with pytest.raises(EditLoopError, match="below its gate"):
        run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    assert not (tmp_path / "judgements").exists()
    assert one.record().closings == ()
    accepted = Acceptance(reason="a pilot, to see the pages", by="lea")
    closing = one.close(accepted)
    assert closing.accepted == accepted
    assert one.record().closings == (closing,) == (one.close(accepted),)
    run_collect(
        one.folder, one.candidates, tmp_path / "judgements", CollectParameters(answers_sha256=closing.answers_sha256)
    )
    assert summary(tmp_path / "judgements")["accepted"] == accepted.model_dump()


def test_the_reason_stays_in_the_lineage(opened, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    one = opened("accepted", recorded=True, alpha_if=0.6)
    one.answer(disagree)
    assert command("close", "accepted", "--accept", "a pilot", "--by", "lea").exit_code == 0
    run_step(
        STAGES["collect"],
        pipeline_run="accepted",
        inputs={"campaign": one.folder, "candidates": one.candidates},
        outputs={"output": tmp_path / "judgements"},
        parameters={},
    )
    run_dataset(
        tmp_path / "judgements", one.candidates, tmp_path / "dataset", tmp_path / "version.json", DatasetParameters()
    )
    facts = read_manifest(tmp_path / "dataset")["facts"]
    chain = Chain("none")
    judgement_links(chain, facts)
    links = {link["name"]: link["value"] for link in chain.links}
    assert links["agreement gate"] == f"if {facts['alpha']['if']:.3f} (gate 0.6), accepted by lea: a pilot"
    with pytest.raises(Gap, match=r"agreement gate: if -\d\.\d+ \(gate 0\.6\), and nobody accepted that"):
        judgement_links(Chain("none"), facts | {"accepted": None})


def test_a_report_of_the_answers_now_and_of_the_judgements_folder_are_one(opened, tmp_path):
    one = opened("reported", recorded=True, repeat_share=0.5, gold_share=0.25)
    one.answer(disagree)
    run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    assert command("report", "reported", "--out", str(tmp_path / "live")).exit_code == 0
    words = ("report", str(tmp_path / "judgements"), "--candidates", str(one.candidates))
    assert command(*words, "--out", str(tmp_path / "kept")).exit_code == 0
    of_stage, live, kept = (
        json.loads((tmp_path / name / "quality.json").read_text()) for name in ("judgements", "live", "kept")
    )
    assert live == of_stage == kept
    assert set(live["annotators"]) == set(PEOPLE)
    assert (tmp_path / "live" / "page.html").read_text().startswith("<!")


def test_a_reason_that_was_not_needed_is_not_kept(opened):
    one = opened("agreed", alpha_if=0.6)
    one.answer(agree)
    closing = one.close(Acceptance(reason="just in case", by="lea"))
    assert closing.accepted is None
    assert closing.alpha["if"] == pytest.approx(1)


def test_whose_annotator_withdrew_is_trained_anew_and_no_other_campaign(opened, tmp_path, monkeypatch):
    one = opened("withdrawn", recorded=True)
    one.answer(agree)
    started = []

    def start(pipeline: str, arguments: dict[str, Any]) -> None:
        if arguments["campaign"] == one.campaign.key:
            started.append(read_run_settings(arguments["settings"]))

    def withdraw(*names: str) -> None:
        lines = [{"kind": "annotator", "name": name, "reason": "", "at": "2026-01-01T00:00:00Z"} for name in names]
        (repo / "withdrawals.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        for words in (("add", "-A"), ("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "withdrawn")):
            subprocess.run(["git", *words], cwd=repo, check=True)

    repo = tmp_path / "repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    withdraw("somebody else")
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(repo))
    reconciling.reconcile(start, tmp_path, ReconcilePolicy())
    assert [one["dataset"]["withdrawn_sha256"] for one in started] == [""]
    withdraw("somebody else", one.campaign.annotators[0])
    reconciling.reconcile(start, tmp_path, ReconcilePolicy())
    assert len(started[1]["dataset"]["withdrawn_sha256"]) == 64
    assert started[1]["run_key"] != started[0]["run_key"]
    assert started[1]["collect"] == started[0]["collect"]


def test_a_campaign_that_fails_stops_no_other(opened):
    """On a cluster, where no folder keeps passes apart."""
    failing, going = opened("failing", recorded=True), opened("going", recorded=True)
    failing.answer(agree)
    going.answer(agree)
    started = []

    def start(pipeline: str, arguments: dict[str, Any]) -> RunStatus:
        if arguments["campaign"] == failing.campaign.key:
            raise EditLoopError("the server refuses it")
        started.append(arguments["campaign"])
        return RunStatus("key", "started")

    result = reconciling.reconcile(start, None, ReconcilePolicy())
    assert going.campaign.key in started
    assert failing.campaign.key not in started
    assert f"failing ({failing.campaign.key}): the server refuses it" in result.failures


def registered(name: str, **tags: str) -> str:
    """A new champion, and its address."""
    api = tracking.client()
    with registry.tolerate_error("RESOURCE_ALREADY_EXISTS"):
        api.create_registered_model(name)
    sha256 = sha256_json([name, tags])
    marks = {f"editloop.{key}": value for key, value in (tags | {"sha256": sha256}).items()}
    number = str(api.create_model_version(name, "s3://nowhere/model", tags=marks).version)
    registry.set_alias(name, registry.CHAMPION, number)
    return f"models:/{name}/{number}"


def test_champions_lead_on_to_the_editor_and_the_next_campaign_once_each(opened, tmp_path):
    improve = {
        "edits_to_practise": "/p",
        "edits_held_out": "/h",
        "reward": "models:/led-reward@champion",
        "registered_name": "led-editor",
    }
    follow_up = {"improve-editor": improve, "collect-preferences": {"edits": "/next"}}
    one = opened("leading, editor 1", recorded=True, follow_up=json.dumps(follow_up))
    one.answer(agree)
    started: dict[str, dict[str, Any]] = {}

    def start(pipeline: str, arguments: dict[str, Any]) -> RunStatus:
        key = str(read_run_settings(arguments["settings"])["run_key"])
        if arguments.get("campaign") != one.campaign.key and pipeline == "train-reward":
            return RunStatus(key, "running")
        started[key] = {"pipeline": pipeline, **arguments}
        return RunStatus(key, "started")

    def pipelines_of(policy: ReconcilePolicy) -> list[str]:
        started.clear()
        reconciling.reconcile(start, tmp_path, policy)
        return [arguments["pipeline"] for arguments in started.values()]

    every = ReconcilePolicy(next_campaign="start")
    other = registered("led-reward", campaign_key="another campaign's")
    registered("led-editor", reward=other)
    assert pipelines_of(every) == ["train-reward"], "what other campaigns led to is not this one's"
    reward = registered("led-reward", campaign_key=one.campaign.key)
    editor = registered("led-editor", reward=reward)
    assert pipelines_of(every) == ["train-reward", "improve-editor", "collect-preferences"]
    key, form = list(started.items())[-1]
    assert form["image_editor"] == editor
    assert form["campaign"] == f"leading, editor {editor[-1]}"
    assert (form["edits"], form["annotators"], form["overlap"]) == ("/next", PEOPLE, 2)
    assert json.loads(read_run_settings(form["settings"])["annotate"]["follow_up"]) == follow_up

    shown = reconciling.reconcile(start, tmp_path, ReconcilePolicy()).lines()
    (due,) = [line for line in shown if line.startswith("due ")]
    words = shlex.split(due.partition("editloop run ")[2])
    assert parse_arguments(words[0], words[2::2]) == {key: value for key, value in form.items() if key != "pipeline"}
    claim_run(tracking.client(), key, 1, "a person")
    assert pipelines_of(ReconcilePolicy())[-1] == "collect-preferences", "which a person began: it is watched"
    assert list(started)[-1] == key, "the same champion, the same key"
    registered("led-editor", reward=reward, another="1")
    pipelines_of(every)
    assert list(started)[-1] != key, "the next champion, the next campaign"
    for name in ("led-reward", "led-editor"):  # the campaign stays, for the tests that follow
        tracking.client().delete_registered_model_alias(name, registry.CHAMPION)


def test_a_late_edit_is_noticed_and_a_new_closing_gives_a_new_version(opened, tmp_path):
    one = opened("late", recorded=True)
    ids = one.answer(agree)
    started = []

    def start(pipeline: str, arguments: dict[str, Any]) -> None:
        if arguments["campaign"] == one.campaign.key:
            started.append(read_run_settings(arguments["settings"]))

    reconciling.reconcile(start, tmp_path, ReconcilePolicy())
    (first,) = started
    (closing,) = one.record().closings
    assert first["collect"]["answers_sha256"] == closing.answers_sha256
    run_step(
        STAGES["collect"],
        pipeline_run="late",
        inputs={"campaign": one.folder, "candidates": one.candidates},
        outputs={"output": tmp_path / "old"},
        parameters={"answers_sha256": closing.answers_sha256},
    )
    before = read_manifest(tmp_path / "old")
    (name, _), annotation = next(iter(ids.items()))
    one.edit(name, annotation, result_of([{"if": 1, "vq": 1}] * one.campaign.places))

    found = json.loads(command("status", "late", "--json").stdout)
    assert not found["closed"]
    assert found["edited"] == f"1 edited (annotation {annotation})"
    shown = command("status", str(one.folder)).stdout
    assert "EDITED SINCE" in shown
    assert f"annotation {annotation}" in shown
    look = reconciling.reconcile(start, tmp_path, ReconcilePolicy())
    assert one.campaign in look.edited
    assert len(started) == 1, "nothing is trained on answers that nobody closed"
    with pytest.raises(EditLoopError, match="not those it was closed with"):
        run_collect(
            one.folder, one.candidates, tmp_path / "new", CollectParameters(answers_sha256=closing.answers_sha256)
        )

    assert command("close", "late").exit_code == 0
    assert json.loads(command("status", "late", "--json").stdout)["closed"]
    again = one.record().closings
    by_hand = plan_run("train-reward", {"campaign": "late"})
    assert by_hand.parameters["collect"] == {"answers_sha256": again[1].answers_sha256}, "what a cache may compare"
    assert again[0] == closing
    assert again[1].answers_sha256 == found["answers_sha256"]
    reconciling.reconcile(start, tmp_path, ReconcilePolicy())
    assert started[-1] == {
        **first,
        "collect": {"answers_sha256": again[1].answers_sha256},
        "run_key": started[-1]["run_key"],
    }
    assert started[-1]["run_key"] != first["run_key"]
    run_collect(one.folder, one.candidates, tmp_path / "new", CollectParameters(answers_sha256=again[1].answers_sha256))
    assert summary(tmp_path / "new")["ratings_sha256"] != before["facts"]["ratings_sha256"]
    assert read_manifest(tmp_path / "old", check=True) == before, "the old version stays what it was"


def test_a_config_changed_in_mid_campaign_keeps_it_from_closing(opened, tmp_path):
    one = opened("reworded", recorded=True)
    client = connect(one.settings)
    one.answer(agree)
    config = client.projects.get(one.campaign.project_id).label_config
    changed = config.replace('name="vq_2" toName="image_2"', 'name="vq_2" toName="image_1"')
    assert changed != config
    client.projects.update(one.campaign.project_id, label_config=changed)
    found = json.loads(command("status", "reworded", "--json").stdout)
    assert "was changed in Label Studio" in found["config_faults"][0]
    assert any("vq_2" in fault and "image_1" in fault for fault in found["config_faults"][1:])
    refused = command("close", "reworded", "--accept", "whatever")
    assert isinstance(refused.exception, EditLoopError)
    assert "was changed" in str(refused.exception)
    look = reconciling.reconcile(lambda *_: None, tmp_path, ReconcilePolicy())
    assert [one for one in look.waiting if one.campaign.name == "reworded" and "was changed" in one.reason]
    with pytest.raises(EditLoopError, match="was changed"):
        run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    client.projects.update(one.campaign.project_id, label_config=config)
    assert command("close", "reworded").exit_code == 0


def test_what_is_missing_is_counted_and_what_is_wrong_is_told(opened, tmp_path):
    one = opened("messy", recorded=True)
    ensure_annotators(connect(one.settings), ["closer-guest"], one.settings)
    first, second, third, fourth = one.pages
    ada, bo = PEOPLE
    good = result_of([{"if": 2, "vq": 3}] * 3)
    five = [{**item, "value": {"choices": ["5"]}} if item["from_name"] == "if_2" else item for item in good]
    for name in PEOPLE:
        one.submit(name, first, good)
    one.submit(ada, second, good)
    wrong = one.submit(bo, second, five)
    one.submit(ada, third, result_of([], REASON))
    one.submit(bo, third, good)
    one.submit(bo, third, result_of([{"if": 4, "vq": 4}] * 3))
    one.submit(ada, fourth, [], was_cancelled=True)
    one.submit(bo, fourth, good[:-1])
    one.submit("closer-guest", fourth, good)
    api = LabelStudioApi(one.settings)
    data = api.call("GET", f"/api/tasks/{one.tasks[first]}")["data"]
    api.call("POST", f"/api/projects/{one.campaign.project_id}/import", json=[{"data": {**data, "key": "no-page"}}])
    strange = task_rows(one.settings, one.campaign)["no-page"][0].id
    one.api(ada).call("POST", f"/api/tasks/{strange}/annotations/", json={"result": good})
    with pytest.raises(EditLoopError, match=r"2 of 4 pages are answered, 5 of 8 answers are there, 1 were skipped"):
        run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    found = json.loads(command("status", "messy", "--json").stdout)["progress"]
    assert {key: found[key] for key in ("skipped", "unfinished", "others", "repeated", "missing", "complete")} == {
        "skipped": 1,
        "unfinished": 2,
        "others": 1,
        "repeated": 1,
        "missing": 0,
        "complete": False,
    }
    assert found["by_annotator"] == {ada: 3, bo: 2}
    assert found["cannot"] == {REASON: 1}
    fault, unknown = found["faults"]
    assert fault.startswith(f"Annotation {wrong} by {bo}")
    assert "if_2 says 5" in fault
    assert "no-page, which is none of the campaign's" in unknown
    one.edit(bo, wrong, good)
    one.submit(ada, fourth, good)
    one.submit(bo, fourth, good)
    metrics = run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    assert (metrics["judgements"], metrics["cannot"]) == (7 * 3, 1)
    rows = [json.loads(line) for line in (tmp_path / "judgements" / "judgements.jsonl").read_text().splitlines()]
    assert [row["if"] for row in rows if row["task_id"] == one.pages[third].task_id] == [4, 4, 4], "the later counts"
    (refused,) = [json.loads(line) for line in (tmp_path / "judgements" / "cannot.jsonl").read_text().splitlines()]
    assert (refused["annotator"], refused["reason"]) == (ada, REASON)


def test_a_page_gone_from_label_studio_is_missed_and_repeats_are_kept_apart(opened, tmp_path):
    one = opened("gone", repeat_share=0.5, gold_share=0.25)
    one.answer(agree)
    last = list(one.pages)[-1]
    api = LabelStudioApi(one.settings)
    api.call("DELETE", f"/api/tasks/{one.tasks[last]}")
    with pytest.raises(EditLoopError, match=r"1 pages are not in Label Studio \(open the campaign again\)"):
        run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())
    run_annotate(
        one.candidates,
        one.folder,
        AnnotateParameters(name="gone", annotators=PEOPLE, overlap=2, gold_share=0.25, repeat_share=0.5),
    )
    one.tasks[last] = task_rows(one.settings, one.campaign)[last][0].id
    for name in PEOPLE:
        one.submit(name, last, result_of([{"if": 1, "vq": 2}] * 3))
    assert (
        run_collect(one.folder, one.candidates, tmp_path / "judgements", CollectParameters())["judgements"] == 4 * 3 * 2
    )
    checks = [json.loads(line) for line in (tmp_path / "judgements" / "checks.jsonl").read_text().splitlines()]
    kinds = [page.kind for page in one.pages.values()]
    assert (kinds.count("repeat"), kinds.count("gold")) == (2, 1)
    assert len(checks) == 3 * 3 * 2
    assert {row["kind"] for row in checks} == {"repeat", "gold"}


def test_two_closings_at_once_are_one(opened):
    one = opened("race")
    one.answer(agree)
    record, live = one.record(), one.live()
    ready = readiness(one.settings, record, one.pages, live)
    for _ in range(2):  # neither sees the other's
        close_campaign(record, ready, live, by="lea")
    assert len(one.record().closings) == 1


def test_a_refused_token_is_told(opened, monkeypatch):
    one = opened("token", recorded=True)
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_TOKEN", "0" * 40)
    refused = command("status", str(one.folder))
    assert isinstance(refused.exception, EditLoopError)
    assert "EDITLOOP_LABEL_STUDIO_TOKEN" in str(refused.exception)


def test_a_closing_itself_knows_what_was_edited_later(opened):
    one = opened("unkept", recorded=True)
    ids = one.answer(agree)
    one.close()
    assert tracking.find_runs(stage="collect", campaign_key=one.campaign.key) == []
    (name, _), annotation = next(iter(ids.items()))
    one.api(name).call("DELETE", f"/api/annotations/{annotation}/")
    found = json.loads(command("status", "unkept", "--json").stdout)
    assert not found["closed"]
    assert found["edited"] == f"1 deleted (annotation {annotation})"

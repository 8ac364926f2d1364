"""What people do in a real Label Studio during a campaign: nothing of it stops the campaign or loses an answer."""

import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.campaign import Campaign, connect
from annotation.campaigns.label_studio import LabelStudioApi, NotThereError
from annotation.campaigns.labelling import result_of
from annotation.campaigns.people import name_people
from annotation.campaigns.project import live_tasks
from annotation.campaigns.record import (
    Acceptance,
    Closed,
    Closing,
    ProjectMade,
    append_event,
    now,
    opened_file,
    read_records,
)
from annotation.lineage_links import judgement_links
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from components.dataset.declaration import DatasetParameters
from components.dataset.stage import run_dataset
from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.chain import Chain
from editloop.lineage.signing import SIGNING_KEY, make_keys
from editloop.lineage.step import run_step
from infra.service_processes import stop_processes
from infra.services import Services, start_services
from pipelines import reconcile as reconciling
from pipelines.campaign_status import campaign_status
from pipelines.catalogue import STAGES
from pipelines.reconcile_settings import ReconcilePolicy
from pipelines.run_status import RunStatus
from tests.answered_campaigns import PEOPLE, Opened, agree
from tests.command_line import EditLoop

ADA, BO = PEOPLE
GUEST = "people-guest"
BEFORE = datetime(2026, 1, 1, tzinfo=UTC)
SAID = result_of([{"if": 2, "vq": 3}] * 3)


@pytest.fixture
def reconcile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], reconciling.ReconcileResult]:
    """reconcile(): one pass, which copies answers at once and starts nothing."""
    monkeypatch.setattr(reconciling, "COPY_SECONDS", -1)

    def one_pass() -> reconciling.ReconcileResult:
        def start(pipeline: str, arguments: Any) -> RunStatus:
            return RunStatus("key", "started")

        return reconciling.reconcile(start, tmp_path, ReconcilePolicy())

    return one_pass


def guest(one: Opened, name: str = GUEST) -> LabelStudioApi:
    """The API as a member who is none of the annotators."""
    ensure_annotators(connect(one.settings), [name], one.settings)
    return one.api(name)


def next_task(api: LabelStudioApi, campaign: Campaign) -> dict[str, Any] | None:
    """The task that Label Studio gives this account next; None where there is none."""
    try:
        task: dict[str, Any] = api.call("GET", f"/api/projects/{campaign.project_id}/next")
    except NotThereError:
        return None
    return task


def answer_all(api: LabelStudioApi, campaign: Campaign, most: int = 100) -> list[str]:
    """Answer what Label Studio gives this account, as a person does; returns the pages' keys."""
    keys = []
    while len(keys) < most and (task := next_task(api, campaign)):
        number = int(task["data"]["image_1"][-12:-4], 16) % 4  # the same for everybody
        levels = result_of([{"if": 1 + (number + place) % 4, "vq": 1 + number} for place in range(campaign.places)])
        api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": levels, "lead_time": 8.0})
        keys.append(str(task["data"]["key"]))
    return keys


def progress_of(one: Opened) -> dict[str, Any]:
    found: dict[str, Any] = campaign_status(one.campaign.key)["progress"]
    return found


def test_the_annotators_get_all_their_pages_whatever_a_guest_answers(opened, reconcile):
    one = opened("guests", recorded=True)
    visitor = guest(one)
    assert len(answer_all(visitor, one.campaign)) == 4
    assert len(answer_all(one.api(ADA), one.campaign)) == 4
    assert answer_all(one.api(BO), one.campaign) == [], "Label Studio takes the guest's answers for enough"
    assert progress_of(one)["others"] == 4
    reconcile()
    assert len(answer_all(one.api(BO), one.campaign)) == 4
    assert progress_of(one) | {"others": 4, "complete": True} == progress_of(one)
    assert answer_all(visitor, one.campaign) == []


def test_people_join_leave_and_are_replaced_and_answers_stay(opened, editloop: EditLoop, reconcile):
    one = opened("joining", recorded=True, repeat_share=0.25)
    assert len(answer_all(one.api(BO), one.campaign, 3)) == 3
    assert editloop("campaign", "remove-annotator", "joining", BO).returncode == 1, "two are asked of each page"
    assert "2 annotators for each page" in editloop("campaign", "remove-annotator", "joining", BO).stderr
    assert editloop("campaign", "replace", "joining", BO, "people-chi", "--actor", "lea").returncode == 0
    assert editloop("campaign", "add-annotator", "joining", "people-dan").returncode == 0
    assert "none of its annotators" in editloop("campaign", "replace", "joining", "nobody", "people-eve").stderr
    assert "one of its annotators already" in editloop("campaign", "add-annotator", "joining", ADA).stderr
    record = one.record()
    assert record.campaign.annotators == (ADA, "people-chi", "people-dan")
    late = answer_all(one.api(BO), one.campaign, 1)
    assert len(late) == 1
    assert progress_of(one)["others"] == 1, "who left answers for nothing, and what was answered before stays"
    reconcile()
    for name in record.campaign.annotators:
        answer_all(one.api(name), one.campaign)
    found = progress_of(one)
    assert found["complete"]
    assert found["by_annotator"][BO] == 3
    everybody = [key for key, page in one.pages.items() if page.overlap == 2 and page.kind == "repeat"]
    answers = one.live().answers.counting()
    assert all((key, name) in answers for key in everybody for name in record.campaign.annotators)
    shown = editloop("campaign", "list").stdout
    assert "joining" in shown
    assert "people-chi" in shown
    editloop("campaign", "remove-annotator", "joining", "people-dan")
    assert progress_of(one)["complete"]


def test_another_list_in_the_file_is_the_same_campaign(opened, make_candidates, tmp_path):
    one = opened("listed", recorded=True)
    answer_all(one.api(ADA), one.campaign, 2)
    parameters = {"name": "listed", "overlap": 2, "gold_share": 0.0, "repeat_share": 0.0}
    run_annotate(
        one.candidates, tmp_path / "again", AnnotateParameters(annotators=[ADA, "people-chi"], lead="lea", **parameters)
    )
    record = one.record()
    assert (record.campaign.annotators, record.campaign.lead) == ((ADA, "people-chi"), "lea")
    assert (record.campaign.key, record.campaign.project_id) == (one.campaign.key, one.campaign.project_id)
    assert progress_of(one)["annotations"] == 2
    changed = AnnotateParameters(annotators=PEOPLE, seed=5, **parameters)
    with pytest.raises(EditLoopError, match=r"listed is open already, with other settings: seed = 0, now 5"):
        run_annotate(one.candidates, tmp_path / "other", changed)
    with pytest.raises(EditLoopError, match=r"with other settings: candidates = "):
        run_annotate(
            make_candidates(3, seed=99), tmp_path / "other", AnnotateParameters(annotators=PEOPLE, **parameters)
        )
    names = [record.campaign.name for record in read_records(one.settings)]
    assert names.count("listed") == 1


def test_a_cancelled_campaign_is_over_and_its_name_is_free(opened, editloop: EditLoop, reconcile, tmp_path):
    one = opened("cancelled", recorded=True)
    one.answer(agree)
    assert editloop("campaign", "cancel", "cancelled", "--reason", "wrong pictures", "--actor", "lea").returncode == 0
    look = reconcile()
    assert one.campaign.key not in [campaign.key for campaign in look.campaigns]
    assert one.record().closings == ()
    for words in (("close", one.campaign.key), ("cancel", one.campaign.key, "--reason", "again")):
        assert "was cancelled on" in editloop("campaign", *words).stderr
    assert "by lea: wrong pictures" in editloop("campaign", "status", one.campaign.key).stdout
    parameters = {"annotators": PEOPLE, "overlap": 2, "gold_share": 0.0, "repeat_share": 0.0}
    run_annotate(one.candidates, tmp_path / "anew", AnnotateParameters(name="cancelled", **parameters))
    keys = [record.campaign.key for record in read_records(one.settings) if record.campaign.name == "cancelled"]
    assert len(set(keys)) == 2


def test_nobody_speaks_for_somebody_else(opened, reconcile):
    one = opened("forged", recorded=True)
    first, second, *_ = one.pages
    given = one.submit(ADA, first, SAID)
    reconcile()
    before = one.live().sha256
    bo = one.api(BO)
    others = result_of([{"if": 4, "vq": 4}] * 3)
    one.edit(BO, given, others)
    bo.call(
        "POST", f"/api/tasks/{one.tasks[second]}/annotations/", json={"result": SAID, "completed_by": author(one, ADA)}
    )
    data = LabelStudioApi(one.settings).call("GET", f"/api/tasks/{one.tasks[second]}")["data"] | {"key": "x"}
    body = [{"data": data, "annotations": [{"completed_by": author(one, ADA), "result": SAID}]}]
    bo.call("POST", f"/api/projects/{one.campaign.project_id}/import", json=body)
    found = progress_of(one)
    assert found["by_annotator"] == {ADA: 1, BO: 0}
    assert len(found["changed_by_others"]) == 2
    assert found["kept"] == 1
    assert one.live().sha256 == before, "ada's answer is as ada left it"
    later = one.submit(BO, second, SAID)
    one.edit(ADA, later, others)
    assert len(progress_of(one)["changed_by_others"]) == 3, "no copy was made since: it counts for nothing"
    one.edit(BO, later, SAID)
    assert progress_of(one)["by_annotator"] == {ADA: 1, BO: 1}, "bo has taken it back"


def test_a_closing_that_no_trusted_key_signed_counts_for_nothing(opened, editloop: EditLoop, tmp_path, monkeypatch):
    one = opened("signed", recorded=True)
    one.answer(lambda name, page, place: {"if": 1 + 3 * (name == ADA), "vq": 2})
    said = Acceptance(reason="fine", by="lea")
    closing = Closing(answers_sha256=one.live().sha256, config_sha256="c", at=now(), alpha={"if": 0.0}, accepted=said)
    event = Closed(key=one.campaign.key, at=now(), by="lea", closing=closing)
    text = {"description": f"editloop-closings: [{closing.model_dump_json()}]"}
    one.api(BO).call("PATCH", f"/api/projects/{one.campaign.project_id}/", json=text)
    api = tracking.client()
    experiment = api.get_experiment_by_name("editloop-campaigns")
    assert experiment
    tags = {"editloop.kind": "closed", "editloop.event.0": event.model_dump_json()}
    tags["editloop.campaign_key"] = one.campaign.key
    unsigned = api.create_run(experiment.experiment_id, tags=tags).info.run_id
    with monkeypatch.context() as patched:
        patched.setenv(SIGNING_KEY, str(make_keys(tmp_path).private))
        strange = append_event(event, one.campaign.name)
    replaced = append_event(event.model_copy(update={"by": "bo"}), one.campaign.name)
    api.set_tag(replaced, "editloop.event.0", event.model_dump_json())
    assert one.record().closings == ()
    assert len(campaign_status(one.campaign.key)["strangers"]) == 3
    shown = editloop("campaign", "status", "signed").stdout
    assert all(run in shown for run in (unsigned, strange, replaced))
    append_event(event, one.campaign.name)
    assert one.record().closings == (closing,), "the same words, signed"


def test_deleted_runs_of_the_record_count_all_the_same(opened):
    one, api = opened("unrecorded", recorded=True), tracking.client()
    opening = one.record().run_id
    api.delete_run(opening)
    assert one.record().campaign == one.campaign
    api.restore_run(opening)


def test_the_files_of_the_record_are_those_that_were_signed(opened, tmp_path):
    one = opened("files", recorded=True)
    record, api = one.record(), tracking.client()
    pages = opened_file(record, "pages.jsonl")
    (tmp_path / "pages.jsonl").write_bytes(pages.replace(b"task", b"gold"))
    api.log_artifact(record.run_id, str(tmp_path / "pages.jsonl"))
    with pytest.raises(EditLoopError, match=r"pages\.jsonl of campaign files in MLflow .* is not what was signed"):
        opened_file(record, "pages.jsonl")


def test_a_clock_that_runs_behind_loses_no_event_and_a_former_leads_decisions_stay(opened, monkeypatch):
    one = opened("clocks", recorded=True, lead="people-lea")
    create = MlflowClient.create_run
    monkeypatch.setattr(MlflowClient, "create_run", lambda *given, **more: create(*given, **more | {"start_time": 1}))
    campaign, lead = one.campaign, author(one, "people-lea")
    append_event(ProjectMade(key=campaign.key, at=now(), by="x", project_id=99, queue=True), campaign.name)
    name_people(one.settings, one.record(), campaign.annotators, None, {}, "x")
    queue = one.record().queue
    assert queue
    assert (queue.campaign.project_id, queue.campaign.annotators) == (99, ())
    assert queue.annotator(lead, BEFORE) == "people-lea"


def author(one: Opened, name: str) -> int:
    return next(user for user, known in one.record().accounts.items() if known == name)


def test_deleted_tasks_and_a_deleted_project_come_back_with_their_answers(opened, reconcile):
    one = opened("deleted", recorded=True)
    ids = one.answer(agree)
    reconcile()
    closed, api = one.record().closings, LabelStudioApi(one.settings)
    assert len(closed) == 1
    before = one.live()
    first, *_, last = one.tasks.values()
    for task in (first, last):
        one.api(BO).call("DELETE", f"/api/tasks/{task}/")
    assert progress_of(one)["missing"] == 2
    assert "deleted: 4 answers on 2 deleted pages were put back from the record" in reconcile().repairs
    assert one.live().sha256 == before.sha256
    assert answer_all(one.api(ADA), one.campaign) == answer_all(one.api(BO), one.campaign) == [], (
        "nobody is asked twice"
    )
    one.api(BO).call("DELETE", f"/api/projects/{one.campaign.project_id}/")
    with pytest.raises(EditLoopError, match=r"its project .* was deleted in Label Studio. `editloop reconcile --once`"):
        campaign_status("deleted")
    repairs = reconcile().repairs
    assert any("was deleted: project" in repair for repair in repairs)
    moved = one.record()
    assert moved.campaign.project_id != one.campaign.project_id
    assert (moved.campaign.key, moved.closings) == (one.campaign.key, closed)
    after = one.live()
    assert after.sha256 == before.sha256, "the closing still names these answers"
    assert {answer.annotation_id for answer in after.answers.given} == set(ids.values())
    assert campaign_status("deleted")["closed"]
    assert [answer_all(one.api(name), moved.campaign) for name in PEOPLE] == [[], []]
    (task, *_) = live_tasks(api, moved.campaign, "all")
    mine = next(given for given in task["annotations"] if given["completed_by"] == author(one, ADA))
    one.edit(ADA, mine["id"], SAID)
    (edited,) = [line for line in campaign_status("deleted")["edited"].split(", ") if "edited" in line]
    assert str(mine["import_id"]) in edited, "a late edit there is an edit of the answer that it was"


def test_second_tasks_suggestions_drafts_and_skips_are_counted_and_mended(opened, reconcile):
    one = opened("doubled", recorded=True)
    first, second, third, _ = one.pages
    api = LabelStudioApi(one.settings)
    data = {key: api.call("GET", f"/api/tasks/{one.tasks[key]}")["data"] for key in (first, second)}
    one.api(BO).call(
        "POST", f"/api/projects/{one.campaign.project_id}/import", json=[{"data": data[first]}, {"data": data[second]}]
    )
    doubles = {
        str(task["data"]["key"]): int(task["id"])
        for task in live_tasks(api, one.campaign, "task_only")
        if task["id"] not in one.tasks.values()
    }
    body = {"result": SAID, "lead_time": 3.0}
    for key in (first, second):
        one.api(ADA).call("POST", f"/api/tasks/{doubles[key]}/annotations/", json=body)
    one.submit(BO, second, SAID)
    one.api(ADA).call("POST", f"/api/tasks/{one.tasks[third]}/drafts", json={"result": SAID[:2]})
    one.api(BO).call("POST", "/api/predictions/", json={"task": one.tasks[third], "result": SAID})
    one.submit(BO, third, [], was_cancelled=True)
    found = progress_of(one)
    assert {name: found[name] for name in ("duplicates", "drafts", "predictions", "skipped", "annotations")} == {
        "duplicates": 2,
        "drafts": 1,
        "predictions": 1,
        "skipped": 1,
        "annotations": 3,
    }
    reconcile()
    found = progress_of(one)
    assert (found["duplicates"], found["predictions"], found["drafts"]) == (1, 0, 1), (
        "both tasks of the second page are answered"
    )
    asked = Counter(answer_all(one.api(ADA), one.campaign) + answer_all(one.api(BO), one.campaign))
    assert (asked[first], asked[second]) == (1, 0), "ada has answered both on their second tasks"
    found = progress_of(one)
    assert (found["complete"], found["annotations"], found["repeated"]) == (True, 8, 0)


def test_a_day_in_the_life(
    service_environment: Services,
    opened: Callable[..., Opened],
    reconcile: Callable[[], reconciling.ReconcileResult],
    editloop: EditLoop,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Three annotators, one replaced, a guest, an account deleted, words edited, a restart, a closing, a late edit."""
    monkeypatch.setenv("EDITLOOP_DATASET_REPO", str(tmp_path / "repo"))
    monkeypatch.setenv("EDITLOOP_DATASET_REMOTE", str(tmp_path / "remote"))
    mark = secrets.token_hex(2)
    ada, bo, chi, dan, visitor = [f"day-{name}-{mark}" for name in ("ada", "bo", "chi", "dan", "visitor")]
    one = opened("a day", recorded=True, annotators=[ada, bo, chi], overlap=2, gold_share=0.25)
    campaign, client = one.campaign, connect(one.settings)
    assert len(answer_all(one.api(ada), campaign, 3)) == 3
    assert len(answer_all(one.api(bo), campaign, 1)) == 1
    assert len(answer_all(guest(one, visitor), campaign, 2)) == 2
    client.projects.update(campaign.project_id, title="Herbst", description="Bitte bis Freitag fertig.")
    reconcile()
    by_chi = answer_all(one.api(chi), campaign, 1)
    reconcile()
    assert editloop("campaign", "replace", "a day", chi, dan, "--actor", "lea").returncode == 0
    LabelStudioApi(one.settings).call("DELETE", f"/api/users/{author(one, chi)}/")
    found = progress_of(one)
    assert (found["by_annotator"][chi], found["deleted_accounts"], found["kept"]) == (len(by_chi), 0, len(by_chi))

    assert stop_processes(service_environment.home, "label-studio")
    with pytest.raises(EditLoopError, match=r"Label Studio at .* does not answer"):
        campaign_status("a day")
    start_services(service_environment.home)

    for name in (ada, dan, bo):
        answer_all(one.api(name), campaign)
    reconcile()
    record = one.record()
    (closing,) = record.closings
    assert closing.alpha == pytest.approx({"if": 1.0, "vq": 1.0}), "these people agree"
    found = progress_of(one)
    assert (found["complete"], found["others"], found["missing"]) == (True, 2, 0)
    assert sum(found["by_annotator"].values()) == found["annotations"] >= found["wanted"]

    chain = _chain(one, tmp_path / "first", closing.answers_sha256)
    taught = {name for page, name in one.live().answers.counting() if one.pages[page].kind == "task"}
    assert {link["name"]: link["value"] for link in chain.links}["annotators"] == ", ".join(sorted(taught))
    late = next(answer for answer in one.live().answers.given if answer.annotator == ada)
    one.edit(ada, late.annotation_id, result_of([{"if": 1, "vq": 1}] * campaign.places))
    assert campaign_status("a day")["edited"] == f"1 edited (annotation {late.annotation_id})"
    assert reconcile().edited == [record.campaign]
    assert editloop("campaign", "close", "a day", "--by", "lea").returncode == 0
    again = one.record().closings[-1]
    assert 0 < (again.alpha["if"] or 0) < 1
    run_collect(one.folder, one.candidates, tmp_path / "again", CollectParameters(answers_sha256=again.answers_sha256))
    assert [record.campaign.name for record in read_records(one.settings)].count("a day") == 1


def _chain(one: Opened, folder: Path, answers_sha256: str) -> Chain:
    """Collect the answers and make a dataset of them; its lineage, which must have no gap."""
    run_step(
        STAGES["collect"],
        pipeline_run=folder.name,
        inputs={"campaign": one.folder, "candidates": one.candidates},
        outputs={"output": folder / "judgements"},
        parameters=CollectParameters(answers_sha256=answers_sha256).model_dump(),
    )
    run_dataset(folder / "judgements", one.candidates, folder / "dataset", folder / "version.json", DatasetParameters())
    chain = Chain("none")
    judgement_links(chain, read_manifest(folder / "dataset")["facts"])
    return chain

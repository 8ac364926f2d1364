"""A campaign in a real Label Studio: opened twice, answered, disturbed, cut off, brought back."""

import json
import threading
from collections import Counter, defaultdict

import httpx
import pytest
from typer.testing import CliRunner

from annotation import simulated_experts as experts
from annotation.campaigns import project as project_module
from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.answers import extract_judgements, read_answers
from annotation.campaigns.campaign import connect, load_pages, read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.locating import locate_campaign
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_record, read_records
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.lineage.step import run_step
from editloop.lineage.tracking import find_runs
from infra.settings import service_settings
from pipelines.campaign_status import campaign_status
from pipelines.catalogue import STAGES
from pipelines.cli import app
from tests.gateway import gateway

PEOPLE = ["expert-1", "expert-2", "expert-3"]


@pytest.fixture
def settings(service_environment):
    return service_settings()


@pytest.fixture
def client(settings):
    return connect(settings)


@pytest.fixture
def open_one(settings, make_candidates, tmp_path):
    """open_one(name, count, seed=..., **parameters) -> (candidates, campaign's folder)."""

    def open_it(name, count, *, seed=0, **given):
        candidates = make_candidates(count, seed=seed)
        run_annotate(candidates, tmp_path / name, AnnotateParameters(**{"name": name, "annotators": PEOPLE, **given}))
        return candidates, tmp_path / name

    return open_it


def judged(settings, folder):
    """The judgements of a campaign as {(kind, task, candidate, annotator): (if, vq)}."""
    campaign, pages = read_campaign(folder), load_pages(folder)
    answers = read_answers(export_answers(settings, campaign), pages, read_record(settings, campaign.key))
    found, _ = extract_judgements(pages, answers, ("task", "repeat", "gold"))
    return {
        (one.kind, one.task_id, one.candidate_id, one.annotator): (one.instruction_following, one.visual_quality)
        for one in found
    }


def test_opening_twice_is_opening_once(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(12, seed=11)
    given = {"name": "twice", "annotators": PEOPLE, "gold_share": 0.2, "repeat_share": 0.2}
    for output in ("first", "second"):
        run_annotate(candidates, tmp_path / output, AnnotateParameters(overlap=2, **given))
    one, two = read_campaign(tmp_path / "first"), read_campaign(tmp_path / "second")
    assert one == two
    assert read_manifest(tmp_path / "first")["sha256"] == read_manifest(tmp_path / "second")["sha256"]
    assert [record.campaign for record in read_records(settings) if record.campaign.name == "twice"] == [one]
    rows, pages = task_rows(settings, one), load_pages(tmp_path / "first")
    assert rows.keys() == pages.keys()
    assert all(len(found) == 1 for found in rows.values())
    assert {key: found[0].overlap for key, found in rows.items()} == {key: page.overlap for key, page in pages.items()}
    ids = [rows[key][0].id for key in pages]
    assert ids == sorted(ids), "Label Studio's queue is the plan's"
    with pytest.raises(EditLoopError, match=r"twice is open already, with other settings: overlap = 2, now 3\. .*name"):
        run_annotate(candidates, tmp_path / "third", AnnotateParameters(overlap=3, **given))


def test_a_task_tells_nothing_but_what_is_shown(settings, open_one):
    candidates, folder = open_one("blind", 8, seed=10, gold_share=0.2, repeat_share=0.2)
    campaign, pages = read_campaign(folder), load_pages(folder)
    tasks = list(project_module.live_tasks(LabelStudioApi(settings), campaign, "all"))
    for task in tasks:
        assert set(task["data"]) == {"key", "instruction", "original", "image_1", "image_2", "image_3", "image_4"}
        assert (task["meta"] or {}) == {}
        page = pages[task["data"]["key"]]
        for place, image in enumerate(page.images, 1):
            assert image in task["data"][f"image_{place}"]
    text = (candidates / "tasks.jsonl").read_text()
    assert "hasty-editor" in text
    hidden = {"editor", "gold", "repeat", *(page.task_id for page in pages.values())}
    hidden |= {candidate for page in pages.values() for candidate in page.candidates}
    assert not [word for word in hidden if word in str([task["data"] for task in tasks])]


def test_an_import_that_was_cut_off_is_mended(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(6, seed=12)
    given = {"name": "cut", "annotators": PEOPLE, "repeat_share": 0.2}
    run_annotate(candidates, tmp_path / "campaign", AnnotateParameters(**given))
    campaign = read_campaign(tmp_path / "campaign")
    api = LabelStudioApi(settings)
    tasks = list(project_module.live_tasks(api, campaign, "task_only"))
    for task in tasks[:3]:
        api.call("DELETE", f"/api/tasks/{task['id']}")
    doubles = [{"data": task["data"]} for task in tasks[3:5]]
    api.call("POST", f"/api/projects/{campaign.project_id}/import", json=doubles)
    client.projects.update(campaign.project_id, maximum_annotations=1)  # resets the overlap of every task
    before = {key: found[0].id for key, found in task_rows(settings, campaign).items()}
    assert Counter(len(found) for found in task_rows(settings, campaign).values()) == {1: 2, 2: 2}
    run_annotate(candidates, tmp_path / "campaign", AnnotateParameters(**given))
    after, pages = task_rows(settings, campaign), load_pages(tmp_path / "campaign")
    assert after.keys() == pages.keys()
    assert all(len(found) == 1 for found in after.values())
    assert all(after[key][0].id == number for key, number in before.items()), "the tasks that were there stay"
    assert {key: found[0].overlap for key, found in after.items()} == {key: page.overlap for key, page in pages.items()}


def test_label_studio_away_in_mid_import_loses_and_doubles_nothing(
    service_environment, make_candidates, tmp_path, monkeypatch
):
    with gateway(service_environment.label_studio.url) as door:
        monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_URL", door.url)
        monkeypatch.setattr(project_module, "IMPORT_PAGES", 4)
        call, imports, met = LabelStudioApi._call, [], []

        def disturbed(self, method, path, **request):
            if not path.endswith("/import"):
                return call(self, method, path, **request)
            imports.append(path)
            if len(imports) == 2:  # gone before it hears the request, back after a while
                door.close()
                threading.Timer(2, door.open).start()
            try:
                done = call(self, method, path, **request)
            except httpx.TransportError:
                met.append("away")
                raise
            if len(met) and met[-1] == "away":
                met.append("answer lost")
                raise httpx.ReadError("the request was done, its answer lost")
            return done

        monkeypatch.setattr(LabelStudioApi, "_call", disturbed)
        candidates = make_candidates(20, seed=17)
        run_annotate(
            candidates,
            tmp_path / "campaign",
            AnnotateParameters(name="away", annotators=["ada", "bo"], repeat_share=0.1),
        )
        assert {"away", "answer lost"} <= set(met)
        campaign, pages = read_campaign(tmp_path / "campaign"), load_pages(tmp_path / "campaign")
        rows = task_rows(service_settings(), campaign)
        assert rows.keys() == pages.keys()
        assert all(len(found) == 1 for found in rows.values())
        assert {key: found[0].overlap for key, found in rows.items()} == {
            key: page.overlap for key, page in pages.items()
        }


def test_every_page_is_asked_of_so_many_people_as_it_says(settings, open_one):
    _, folder = open_one("asked", 10, seed=18, overlap=1, gold_share=0.2, repeat_share=0.2)
    campaign, pages = read_campaign(folder), load_pages(folder)
    accounts = read_accounts(settings)
    asked = defaultdict(list)
    waiting = list(PEOPLE)
    while waiting:
        for name in list(waiting):
            api = LabelStudioApi(settings, accounts[name].token)
            reply = api.session.get(f"{api.url}/api/projects/{campaign.project_id}/next", timeout=60)
            if reply.status_code == 404:  # no page is left for this person
                waiting.remove(name)
                continue
            task = reply.json()
            asked[task["data"]["key"]].append(name)
            result = result_of([{"if": 2, "vq": 3}] * 4)
            api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result})
    assert {key: len(names) for key, names in asked.items()} == {key: page.overlap for key, page in pages.items()}
    assert all(len(set(names)) == len(names) for names in asked.values())
    assert {page.overlap for page in pages.values()} == {1, 3}


def test_one_person_meets_the_pages_in_the_plans_order(settings, open_one):
    _, folder = open_one("order", 6, seed=19, annotators=PEOPLE[:1], overlap=1, repeat_share=0.2)
    campaign, pages = read_campaign(folder), load_pages(folder)
    api = LabelStudioApi(settings, read_accounts(settings)[PEOPLE[0]].token)
    met = []
    for _ in pages:
        task = api.call("GET", f"/api/projects/{campaign.project_id}/next")
        met.append(task["data"]["key"])
        api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result_of([{"if": 1, "vq": 1}] * 4)})
    assert met == list(pages)


def test_simulated_experts_answer_every_page_once_and_the_same_each_time(settings, open_one):
    said = []
    for name in ("one", "two"):
        candidates, folder = open_one(
            name, 6, seed=13, annotators=[*PEOPLE, "expert-4"], overlap=3, gold_share=0.2, repeat_share=0.2
        )
        wanted = read_campaign(folder).wanted
        assert wanted == 5 * 3 + 3 * 4
        assert experts.answer_campaign(folder, candidates, settings=settings, seed=3) == wanted
        assert experts.answer_campaign(folder, candidates, settings=settings, seed=3) == 0
        said.append(judged(settings, folder))
        people = defaultdict(set)
        for kind, task, _, annotator in said[-1]:
            people[kind, task].add(annotator)
        assert Counter(map(len, people.values())) == {3: 5, 4: 3}
    assert said[0] == said[1]
    assert {kind for kind, *_ in said[0]} == {"task", "repeat", "gold"}


def test_resumed_answers_equal_unbroken_ones(settings, open_one, monkeypatch):
    call, given = experts.LabelStudioApi.call, []

    def dies_after_five(api, method, path, **options):
        if method == "POST" and path.endswith("/annotations/"):
            if len(given) >= 5:
                raise KeyboardInterrupt
            given.append(path)
        return call(api, method, path, **options)

    said = []
    for name in ("broken", "whole"):
        candidates, folder = open_one(name, 4, seed=14, overlap=len(PEOPLE))
        if name == "broken":
            monkeypatch.setattr(experts.LabelStudioApi, "call", dies_after_five)
            with pytest.raises(KeyboardInterrupt):
                experts.answer_campaign(folder, candidates, settings=settings)
            monkeypatch.setattr(experts.LabelStudioApi, "call", call)
            assert len(given) == 5
        experts.answer_campaign(folder, candidates, settings=settings)
        said.append(judged(settings, folder))
    assert said[0] == said[1]
    assert len(said[0]) == 4 * 4 * 3


def test_settings_and_words_that_people_change_in_label_studio_change_nothing(client, settings, open_one, tmp_path):
    candidates, folder = open_one("changed", 2, seed=16)
    project = read_campaign(folder).project_id
    config = client.projects.get(project).label_config
    client.projects.update(
        project,
        title="Herbst",
        description="Herbstkampagne, bitte bis Freitag fertig.",
        label_config=config.replace("with a slip", "good"),
        expert_instruction="Rate as you like.",
        show_collab_predictions=True,
        maximum_annotations=5,
    )
    assert "was changed in Label Studio" in campaign_status("changed")["config_faults"][0]
    run_annotate(candidates, tmp_path / "again", AnnotateParameters(name="changed", annotators=PEOPLE))
    found = client.projects.get(project)
    assert (found.label_config, found.maximum_annotations, found.show_collab_predictions) == (config, 2, False)
    assert "How to rate" in found.expert_instruction
    assert found.description.startswith("Herbst"), "people's own words stay: nothing is read from them"
    assert campaign_status("changed")["config_faults"] == []
    assert read_campaign(tmp_path / "again") == read_campaign(folder)


def test_better_guidelines_reach_an_open_campaign_and_its_overlaps_stay(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(4, seed=20)
    given = {"name": "guided", "annotators": PEOPLE, "repeat_share": 0.2}
    run_annotate(candidates, tmp_path / "one", AnnotateParameters(guidelines="# Look *closely*", **given))
    run_annotate(candidates, tmp_path / "two", AnnotateParameters(guidelines="# Look <b>twice</b>", **given))
    one, two = read_campaign(tmp_path / "one"), read_campaign(tmp_path / "two")
    assert one == two
    shown = client.projects.get(one.project_id).expert_instruction
    assert "<h1>Look" in shown
    assert "&lt;b&gt;twice" in shown
    pages = load_pages(tmp_path / "two")
    assert {key: found[0].overlap for key, found in task_rows(settings, two).items()} == {
        key: page.overlap for key, page in pages.items()
    }


def test_a_campaign_is_found_by_folder_name_and_key(client, settings, make_candidates, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "cache"))
    candidates, output = make_candidates(3, seed=21), tmp_path / "campaign"
    run_step(
        STAGES["annotate"],
        pipeline_run="locate",
        inputs={"candidates": candidates},
        outputs={"output": output},
        parameters={"name": "to be found", "annotators": PEOPLE},
        tags={"uri.candidates": str(candidates), "uri.output": str(output)},
    )
    opened = read_campaign(output)
    for name in (str(output), "to be found", opened.key):
        found = locate_campaign(settings, name)
        assert (found.campaign, found.folder, found.find_candidates()) == (opened, output, candidates)
    output.rename(tmp_path / "elsewhere")
    fetched = locate_campaign(settings, "to be found")
    assert fetched.campaign == opened
    assert load_pages(fetched.folder) == load_pages(tmp_path / "elsewhere")
    with pytest.raises(EditLoopError, match="no such campaign or folder"):
        locate_campaign(settings, "never opened")


def test_a_file_opens_a_campaign_that_reconcile_can_go_on_from(client, settings, make_candidates, tmp_path):
    candidates = make_candidates(5, seed=23)
    file, out = tmp_path / "campaign.yaml", tmp_path / "opened"
    file.write_text(
        f"name: Lea's kitchen\ncandidates: {candidates.name}\nannotators: [expert-1, expert-2]\nlead: lea\n"
        "gold: {share: 0.2}\nrepeats: {share: 0.2}\ngates: {alpha: {if: 0.5}}\n"
    )
    call = ["campaign", "open", str(file), "--out", str(out), "--follow-up", '{"train-reward": {"epochs": 1}}']
    for _ in range(2):
        done = CliRunner().invoke(app, call)
        assert done.exit_code == 0, done.output
        assert "7, of which 5 are tasks" in done.output
    opened = read_campaign(out)
    assert (opened.name, opened.lead, opened.gates, opened.pages) == ("Lea's kitchen", "lea", {"if": 0.5}, 7)
    assert [one.campaign for one in read_records(settings) if one.campaign.name == opened.name] == [opened]
    (run,) = find_runs(stage="annotate", campaign_key=opened.key)
    told = {key.removeprefix("editloop."): value for key, value in run.data.tags.items()}
    assert (told["uri.candidates"], told["uri.output"]) == (str(candidates), str(out))
    assert told["input.candidates"] == read_manifest(candidates)["sha256"]
    assert told["output.output"] == read_manifest(out)["sha256"]
    assert json.loads(told["follow_up"]) == {"train-reward": {"epochs": 1}}


def test_a_token_that_is_refused_and_a_label_studio_out_of_reach_are_told_apart(settings, monkeypatch):
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_TOKEN", "expired")
    with pytest.raises(EditLoopError, match="refuses EDITLOOP_LABEL_STUDIO_TOKEN"):
        connect(service_settings())
    with pytest.raises(EditLoopError, match="refuses the token") as told:
        LabelStudioApi(service_settings()).call("GET", "/api/projects")
    assert "expired" not in str(told.value).replace("has expired", ""), "no token in a message"
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_URL", "http://127.0.0.1:9")
    with pytest.raises(EditLoopError, match=r"http://127\.0\.0\.1:9 does not answer"):
        connect(service_settings())

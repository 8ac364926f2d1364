"""A training round and norming in a real Label Studio: known answers shown afterwards, passing, what counts then."""

import pytest
from typer.testing import CliRunner

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.campaign import read_campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_record
from annotation.campaigns.training import training_pages
from annotation.campaigns.training_project import KNOWN
from annotation.simulated_experts import answer_campaign
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from components.collect.declaration import CollectParameters
from components.collect.stage import run_collect
from editloop.data.candidates_folder import read_lines
from editloop.data.vocabulary import Judgement
from editloop.errors import EditLoopError
from infra.settings import service_settings
from pipelines.campaign_status import campaign_status, show_status
from pipelines.cli import app

PEOPLE = ["trainee-1", "trainee-2"]
PARAMETERS = AnnotateParameters(
    name="trained", annotators=PEOPLE, overlap=2, gold_pages=1, training_pages=2, norming_pages=1
)


def test_only_who_passed_the_training_counts_and_norming_pages_stand_side_by_side(
    service_environment, make_candidates, tmp_path, capsys
):
    settings, candidates, folder = service_settings(), make_candidates(6, seed=81, candidates=3), tmp_path / "campaign"
    for _ in range(2):
        run_annotate(candidates, folder, PARAMETERS)
    campaign = read_campaign(folder)
    record = read_record(settings, campaign.key)
    training, known_pages = record.training.campaign, training_pages(record)
    rows, owner = task_rows(settings, training), LabelStudioApi(settings)
    assert rows.keys() == known_pages.keys()
    assert not set(rows) & set(task_rows(settings, campaign))
    assert len(owner.call("GET", "/api/predictions/", params={"project": training.project_id})) == len(rows) == 2

    def train(name: str, right: bool) -> None:
        api = LabelStudioApi(settings, read_accounts(settings)[name].token)
        path = f"/api/projects/{training.project_id}/next"
        while (reply := api.session.get(f"{api.url}{path}", timeout=60)).status_code == 200:
            task, page = reply.json(), known_pages[reply.json()["data"]["key"]]
            assert task["predictions"] == []
            levels = []
            for candidate in page.candidates:
                known = {axis: page.expected.get(candidate, {}).get(axis, (2, 2))[1] for axis in ("if", "vq")}
                levels.append(known if right else {axis: 1 if level > 2 else 4 for axis, level in known.items()})
            api.call("POST", f"/api/tasks/{task['id']}/annotations/", json={"result": result_of(levels)})
            (shown,) = api.call("GET", f"/api/tasks/{task['id']}")["predictions"]
            known_controls = {
                f"{axis}_{place}": ["4" if span[1] == 4 else "1"]
                for place, candidate in enumerate(page.candidates, 1)
                for axis, span in page.expected.get(candidate, {}).items()
            }
            assert shown["model_version"] == KNOWN
            assert {item["from_name"]: item["value"]["choices"] for item in shown["result"]} == known_controls

    train(PEOPLE[0], right=True)
    train(PEOPLE[1], right=False)
    wanted = answer_campaign(folder, candidates, settings=settings)
    assert wanted == campaign.wanted == 2 * len(task_rows(settings, campaign))
    status = campaign_status(str(folder))
    assert {name: result["passed"] for name, result in status["training"]["annotators"].items()} == {
        PEOPLE[0]: True,
        PEOPLE[1]: False,
    }
    counted = (status["progress"]["annotations"], status["progress"]["untrained"])
    assert counted == (wanted / 2, wanted / 2)
    assert f"{wanted // 2} are by people who have not passed the training" in status["hindrance"]
    show_status(status)
    assert "NOT PASSED: 2 of 2 pages, 0% right" in capsys.readouterr().out
    with pytest.raises(EditLoopError, match="not passed the training"):
        run_collect(folder, candidates, tmp_path / "judgements", CollectParameters())

    # Another try: the lead deletes the answers.
    for task in export_answers(settings, training).tasks:
        for annotation in task.annotations:
            if record.accounts[annotation["completed_by"]] == PEOPLE[1]:
                owner.call("DELETE", f"/api/annotations/{annotation['id']}/")
    train(PEOPLE[1], right=True)
    assert campaign_status(str(folder))["progress"]["complete"], "what was answered before counts now"

    # Passing is kept in the campaign's record, whatever becomes of the training's project.
    run_annotate(candidates, folder, PARAMETERS)
    owner.call("DELETE", f"/api/projects/{training.project_id}/")
    status = campaign_status(str(folder))
    assert status["training"]["deleted"]
    assert status["progress"]["complete"]
    run_annotate(candidates, folder, PARAMETERS)
    anew = read_record(settings, campaign.key).training.campaign
    assert anew.project_id != training.project_id
    assert task_rows(settings, anew).keys() == known_pages.keys()

    figures = run_collect(folder, candidates, tmp_path / "judgements", CollectParameters())
    assert figures["tasks"] == campaign.tasks == 3
    judged = read_lines(tmp_path / "judgements" / "judgements.jsonl", Judgement)
    checked = read_lines(tmp_path / "judgements" / "checks.jsonl", Judgement)
    assert {one.kind for one in judged} == {"task"}
    assert {one.kind for one in checked} == {"gold", "norming"}
    done = CliRunner().invoke(
        app, ["campaign", "report", str(tmp_path / "judgements"), "--out", str(tmp_path / "report")]
    )
    assert done.exit_code == 0, done.output
    for page in ((tmp_path / "judgements" / "page.html"), (tmp_path / "report" / "page.html")):
        norming = page.read_text().split("<h2>Norming</h2>")[1].split("</section>")[0]
        assert norming.count("data:image/webp") == 4, "source and three edits, from the campaign's store too"
        assert all(name in norming for name in PEOPLE)
        assert f"/projects/{campaign.project_id}/data?task=" in norming

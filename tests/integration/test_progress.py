"""Label Studio's own progress: right after answers that came at once, and after a change of overlap there."""

from concurrent.futures import ThreadPoolExecutor

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.campaign import connect, load_pages, read_campaign
from annotation.campaigns.closing import readiness
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import result_of
from annotation.campaigns.lead_queue import snapshot
from annotation.campaigns.project import task_rows
from annotation.campaigns.record import read_record
from components.annotate.declaration import AnnotateParameters
from components.annotate.stage import run_annotate
from infra.settings import service_settings

PEOPLE = ["expert-1", "expert-2", "expert-3"]
ANSWER = {"result": result_of([{"if": 2, "vq": 3}] * 2), "lead_time": 5.0}


def test_progress_is_right_after_parallel_answers_and_a_changed_overlap(service_environment, make_candidates, tmp_path):
    settings, folder = service_settings(), tmp_path / "campaign"
    candidates = make_candidates(6, seed=61, candidates=2)
    parameters = AnnotateParameters(name="progress", annotators=PEOPLE, overlap=1, repeat_share=0.5)
    run_annotate(candidates, folder, parameters)
    campaign, pages, client = read_campaign(folder), load_pages(folder), connect(settings)
    ids = {key: rows[0].id for key, rows in task_rows(settings, campaign).items()}
    owner = LabelStudioApi(settings)

    def answer_all(name: str) -> None:
        api = LabelStudioApi(settings, read_accounts(settings)[name].token)
        path = f"/api/projects/{campaign.project_id}/next"
        while (page := api.session.get(f"{api.url}{path}", timeout=60)).status_code == 200:
            api.call("POST", f"/api/tasks/{page.json()['id']}/annotations/", json=ANSWER)

    asked_of_all = [key for key, page in pages.items() if page.overlap == len(PEOPLE)]
    early = LabelStudioApi(settings, read_accounts(settings)[PEOPLE[0]].token)
    early.call("POST", f"/api/tasks/{ids[asked_of_all[-1]]}/annotations/", json=ANSWER)
    client.projects.update(campaign.project_id, maximum_annotations=2)  # resets the overlap of every task
    run_annotate(candidates, folder, parameters)
    with ThreadPoolExecutor(len(PEOPLE)) as pool:
        list(pool.map(answer_all, PEOPLE))
    # What the slower of two submissions leaves; whether that happens above is a matter of milliseconds.
    late = {"is_labeled": False, "total_annotations": 2}
    owner.call("PATCH", f"/api/tasks/{ids[asked_of_all[0]]}", json=late)
    record = read_record(settings, campaign.key)
    live = snapshot(settings, record, pages)
    assert readiness(settings, record, pages, live).progress.complete
    project = owner.call("GET", f"/api/projects/{campaign.project_id}")
    assert project["finished_task_number"] == project["task_number"] == len(pages)
    for task in export_answers(settings, campaign).tasks:
        assert task.total_annotations == len(task.annotations) >= pages[task.key].overlap

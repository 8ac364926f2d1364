"""The Label Studio project of a campaign's training round: gold pages that show the known answer afterwards."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from annotation.campaigns.guidelines import guidelines_html
from annotation.campaigns.label_studio import LabelStudioApi, NotThereError, read_project
from annotation.campaigns.labelling import result_of, task_data
from annotation.campaigns.pictures import picture_store
from annotation.campaigns.project import (
    PlannedTask,
    TaskRow,
    import_tasks,
    make_project,
    opened_config,
    project_title,
    task_rows,
)
from annotation.campaigns.record import CampaignRecord, ProjectMade, append_event, now, read_record
from annotation.campaigns.training import training_pages
from editloop.data.vocabulary import HIGHEST_RATING, Axis, Page, Range
from editloop.progress import track
from infra.settings import ServiceSettings

KNOWN = "known-answer"
"""What Label Studio calls the prediction. Its tab abbreviates several words to their initials."""
OPEN_TO = 1000
"""Overlap of a training page: whoever joins later still gets it."""
GUIDELINES = """# Training

Rate these pages with **Label All Tasks** before the campaign. Then click the project's name, and open a page that you
have submitted: the tab **known-answer** stands beside yours. There 4 means 3 or 4, and 1 means 1 or 2, unless the lead
gave one level. Where it says nothing, any rating is right.

Do not change an answer afterwards: a changed answer counts as wrong.
"""


def mend_training(client: Any, settings: ServiceSettings, record: CampaignRecord, guidelines: str) -> CampaignRecord:
    """Open the training project of a campaign, or bring it up to date; make it anew where it was deleted.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        record: The campaign's record.
        guidelines: The campaign's guidelines, in Markdown.

    Returns:
        The record, which names the project; unchanged where the campaign has no training round.
    """
    campaign, api = record.campaign, LabelStudioApi(settings)
    if campaign.training is None:
        return record
    if not _is_there(api, record):
        project_id = make_project(
            api,
            project_title(campaign.name, ": training"),
            f"Before the campaign {campaign.name}. This text may be changed freely.",
            opened_config(record),
        )
        event = ProjectMade(
            key=campaign.key, at=now(), by="EditLoop", project_id=project_id, queue=False, training=True
        )
        append_event(event, campaign.name)
        record = read_record(settings, campaign.key)
    assert record.training
    training, store = record.training.campaign, picture_store(settings)
    path = f"/api/projects/{training.project_id}/"
    api.call("PATCH", path, json={"expert_instruction": guidelines_html(f"{GUIDELINES}\n{guidelines}")})
    if api.call("GET", path)["maximum_annotations"] != OPEN_TO:
        api.call("PATCH", path, json={"maximum_annotations": OPEN_TO})
    store.attach(client, training.project_id, campaign.key)
    pages = training_pages(record)
    shown = store.shown(campaign.key)
    planned = [PlannedTask(data=task_data(page, shown, campaign.references), annotations=[]) for page in pages.values()]
    rows = import_tasks(api, training, planned, task_rows(settings, training), Counter())
    _show_known_answers(api, training.project_id, pages, rows)
    return record


def _is_there(api: LabelStudioApi, record: CampaignRecord) -> bool:
    if record.training is None:
        return False
    try:
        read_project(api, record.training.campaign.project_id, record.campaign.name)
    except NotThereError:
        return False
    return True


def _show_known_answers(
    api: LabelStudioApi, project_id: int, pages: Mapping[str, Page], rows: Mapping[str, TaskRow]
) -> None:
    shown = {
        int(prediction["task"]) for prediction in api.call("GET", "/api/predictions/", params={"project": project_id})
    }
    hidden = [page for page in pages.values() if rows[page.key].id not in shown]
    for page in track(hidden, "known answers"):
        ratings = [_clear_ratings(page.expected.get(candidate, {})) for candidate in page.candidates]
        body = {"task": rows[page.key].id, "result": result_of(ratings), "model_version": KNOWN}
        api.call("POST", "/api/predictions/", json=body)


def _clear_ratings(expected: Mapping[Axis, Range]) -> dict[Axis, int]:
    """Return one level for each known range: its upper end where that is the best level, else its lower end."""
    return {axis: high if high == HIGHEST_RATING else low for axis, (low, high) in expected.items()}

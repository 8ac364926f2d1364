"""Adjudication: the lead decides tasks in conflict, in a separate Label Studio project (the lead's queue).

The queue shows the campaign's pages, without votes until the lead has decided. A decided task then gets the votes as
predictions, one per voter, which Label Studio shows beside the lead's own answer. Decisions are stored beside the
votes; nothing here changes a vote.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.answers import PageAnswer, extract_judgements
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.closing import config_faults
from annotation.campaigns.guidelines import guidelines_html
from annotation.campaigns.label_studio import LabelStudioApi, NotThereError, read_project
from annotation.campaigns.labelling import AXIS_WORDS, labelling_config, result_of, task_data
from annotation.campaigns.lead_queue import Snapshot, decided
from annotation.campaigns.pictures import picture_store
from annotation.campaigns.project import PlannedTask, import_tasks, kept_by_page, make_project, project_title, task_rows
from annotation.campaigns.record import CampaignRecord, ProjectMade, append_event, now, read_record
from annotation.quality.conflicts import conflicts
from editloop.content import RESTORE
from editloop.data.vocabulary import Page, Record
from editloop.errors import EditLoopError
from editloop.json_file import read_json_record
from editloop.progress import track
from infra.settings import ServiceSettings

GUIDELINES = """# Adjudication

Annotators disagree on these tasks. Rate every candidate as you see it, and write the reason for your decision.

You do not see their votes before you have decided. Afterwards `editloop campaign adjudicate` puts them on the page:
open the task again, and each annotator's ratings stand beside yours under their name. You may then change your mind.
"""


class AdjudicationState(Record):
    """State of a campaign's adjudication."""

    url: str
    """Address of the lead's queue; "" if there is none yet."""
    conflicts: int
    """Tasks in conflict now."""
    tasks: int
    """Tasks in the lead's queue; a task stays there when it is no longer in conflict."""
    decided: int
    """Tasks that the lead answered with a reason, or as impossible to judge. They show the votes."""


def adjudicate(
    client: Any,
    settings: ServiceSettings,
    record: CampaignRecord,
    folder: Path,
    pages: Mapping[str, Page],
    live: Snapshot,
) -> AdjudicationState:
    """Bring the lead's queue up to date: open it, add tasks now in conflict, and show the votes on decided tasks.

    It is safe to call this again at any time. Without a conflict no queue is opened.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Addresses and credentials of the services.
        record: The campaign's record.
        folder: The campaign's folder.
        pages: The campaign's pages by key.
        live: The answers that Label Studio has now.

    Returns:
        The state of the queue.

    Raises:
        EditLoopError: The campaign has no lead, or its labelling config was changed in Label Studio.
    """
    campaign = record.campaign
    if campaign.lead is None:
        raise EditLoopError(
            f"Campaign {campaign.name} has no lead who could decide: name one (`lead:` in its file) and open it again."
        )
    if faults := config_faults(settings, campaign):
        raise EditLoopError(" ".join(faults))
    judgements, _ = extract_judgements(pages, live.answers)
    tasks = conflicts(judgements)
    conflict_pages = {key: page for key, page in pages.items() if page.kind == "task" and page.task_id in tasks}
    store, api = picture_store(settings), LabelStudioApi(settings)
    queue = _live_queue(api, record)
    if queue is None:
        if not conflict_pages and not live.lead.given:
            return AdjudicationState(url="", conflicts=0, tasks=0, decided=0)
        queue = _open(client, settings, record, folder)
    store.attach(client, queue.project_id, campaign.key)
    queued = task_rows(settings, queue)
    wanted = {*queued, *conflict_pages, *(answer.page for answer in live.lead.given)}
    queue_pages = [page for key, page in pages.items() if key in wanted]
    kept = kept_by_page(record, wanted - queued.keys(), queue=True)
    shown = store.shown(campaign.key)
    planned = [
        PlannedTask(data=task_data(page, shown, campaign.references), annotations=kept.get(page.key, []))
        for page in queue_pages
    ]
    rows = import_tasks(api, queue, planned, queued, Counter(answer.task_id for answer in live.lead.given))
    decided_keys = [answer.page for answer in decided(live.lead)]
    for key in track(decided_keys, "votes"):
        _show_votes(api, rows[key].id, [answer for answer in live.answers.counting().values() if answer.page == key])
    return AdjudicationState(url=queue.url, conflicts=len(tasks), tasks=len(queue_pages), decided=len(decided_keys))


def _live_queue(api: LabelStudioApi, record: CampaignRecord) -> Campaign | None:
    """Return the lead's queue; None where there is none, or its project was deleted."""
    if record.queue is None:
        return None
    campaign = record.queue.campaign
    try:
        read_project(api, campaign.project_id, campaign.name)
    except NotThereError:
        return None
    return campaign


def _open(client: Any, settings: ServiceSettings, record: CampaignRecord, folder: Path) -> Campaign:
    campaign = record.campaign
    ensure_annotators(client, [str(campaign.lead)], settings)
    words = read_json_record(folder / "settings.json", CampaignSettings, RESTORE).axes
    project_id = make_project(
        LabelStudioApi(settings),
        project_title(campaign.name, ": adjudication"),
        f"For {campaign.lead} to decide.",
        labelling_config(
            campaign.places,
            tiny=campaign.tiny,
            references=campaign.references,
            axes=AXIS_WORDS | words,
            decide=True,
        ),
        guidelines_html(GUIDELINES),
    )
    append_event(
        ProjectMade(key=campaign.key, at=now(), by="EditLoop", project_id=project_id, queue=True), campaign.name
    )
    queue = read_record(settings, campaign.key).queue
    assert queue
    return queue.campaign


def _show_votes(api: LabelStudioApi, task: int, votes: list[PageAnswer]) -> None:
    """Show the current votes on a decided task, each as a prediction under the voter's name."""
    existing = api.call("GET", "/api/predictions/", params={"task": task})
    predictions = {prediction["model_version"]: prediction for prediction in existing}
    for vote in votes:
        result, before = result_of(vote.ratings, vote.reason), predictions.get(vote.annotator)
        if before and _values_by_control(before["result"]) == _values_by_control(result):
            continue
        if before:
            api.call("DELETE", f"/api/predictions/{before['id']}/")
        body = {"task": task, "result": result, "model_version": vote.annotator}
        api.call("POST", "/api/predictions/", json=body)


def _values_by_control(result: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["from_name"]: item["value"] for item in result}

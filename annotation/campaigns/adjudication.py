"""Adjudication: the lead decides tasks in conflict, in a separate Label Studio project (the lead's queue).

The queue shows the campaign's pages, without votes until the lead has decided. A decided task then gets the votes as
predictions, one per voter, which Label Studio shows beside the lead's own answer. Decisions are stored beside the
votes; nothing here changes a vote.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import track

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.answers import CampaignAnswers, PageAnswer, export_answers, extract_judgements
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.closing import config_faults
from annotation.campaigns.guidelines import guidelines_html
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import AXIS_WORDS, labelling_config, result_of, task_data
from annotation.campaigns.lead_queue import FACTS, decided, find_queue, lead_answers, queue_of
from annotation.campaigns.opening import import_tasks, live_tasks
from annotation.campaigns.pictures import picture_store, read_large_pictures, shown_pictures
from annotation.quality.conflicts import conflicts
from editloop.content import canonical_json
from editloop.data.vocabulary import Page, Record
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings

TITLE = 50
"""Longest project title that Label Studio accepts, in characters."""
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
    campaign: Campaign,
    folder: Path,
    pages: Mapping[str, Page],
    answers: CampaignAnswers,
) -> AdjudicationState:
    """Bring the lead's queue up to date: open it, add tasks now in conflict, and show the votes on decided tasks.

    It is safe to call this again at any time. Without a conflict no queue is opened.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Addresses and credentials of the services.
        campaign: The campaign.
        folder: The campaign's folder.
        pages: The campaign's pages by key.
        answers: The answers that Label Studio has now.

    Returns:
        The state of the queue.

    Raises:
        EditLoopError: The campaign has no lead, or its labelling config was changed in Label Studio.
    """
    if campaign.lead is None:
        raise EditLoopError(
            f"Campaign {campaign.name} has no lead who could decide: name one (`lead:` in its file) and open it again."
        )
    if faults := config_faults(client, campaign):
        raise EditLoopError(" ".join(faults))
    judgements, _ = extract_judgements(pages, answers)
    tasks = conflicts(judgements)
    conflict_pages = {key: page for key, page in pages.items() if page.kind == "task" and page.task_id in tasks}
    queue = find_queue(client, settings, campaign)
    if queue is None:
        if not conflict_pages:
            return AdjudicationState(url="", conflicts=0, tasks=0, decided=0)
        queue = _open(client, settings, campaign, folder)
    store, api = picture_store(settings), LabelStudioApi(settings)
    store.attach(client, queue.project_id, campaign.key)
    queued_keys = {task["data"]["key"] for task in live_tasks(api, queue, "task_only")}
    queue_pages = [page for key, page in pages.items() if key in queued_keys or key in conflict_pages]
    shown = shown_pictures(store, campaign.key, read_large_pictures(folder))
    planned = [task_data(page, shown) for page in queue_pages]
    rows = import_tasks(api, queue, planned)
    lead = lead_answers(client, campaign, pages, export_answers(settings, queue))
    decided_keys = [answer.page for answer in decided(lead)]
    for key in track(decided_keys, "votes", transient=True):
        _show_votes(api, rows[key].id, [answer for answer in answers.counting().values() if answer.page == key])
    return AdjudicationState(url=queue.url, conflicts=len(tasks), tasks=len(queue_pages), decided=len(decided_keys))


def _open(client: Any, settings: ServiceSettings, campaign: Campaign, folder: Path) -> Campaign:
    ensure_annotators(client, [str(campaign.lead)], settings)
    words = CampaignSettings.model_validate_json((folder / "settings.json").read_text()).axes
    facts = {"campaign_key": campaign.key, "lead": campaign.lead}
    ending = ": adjudication"
    project = client.projects.create(
        title=campaign.name[: TITLE - len(ending)] + ending,
        description=f"For {campaign.lead} to decide.\n{FACTS}{canonical_json(facts).decode()}",
        label_config=labelling_config(campaign.places, tiny=campaign.tiny, axes=AXIS_WORDS | words, decide=True),
        expert_instruction=guidelines_html(GUIDELINES),
        show_instruction=True,
        show_skip_button=False,
        enable_empty_annotation=False,
        # Otherwise a page would start with a vote filled in.
        show_collab_predictions=False,
    )
    return queue_of(campaign, project.id, settings)


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

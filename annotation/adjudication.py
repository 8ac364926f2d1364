"""Adjudication: tasks that annotators disagree on go to the lead, in a Label Studio project of their own.

Its pages are those of the campaign, and nothing of the votes is in it until the lead has decided: a decided task then
gets the votes as predictions, one a voter, which Label Studio shows beside the lead's own answer. Decisions are kept
beside the votes; nothing here changes a vote.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import track

from annotation.accounts import ensure_annotators, names_by_id
from annotation.answers import Answer, Answers, export, judgements, read_answers
from annotation.campaign import Campaign
from annotation.campaign_settings import CampaignSettings
from annotation.closing import config_faults
from annotation.conflicts import conflicts
from annotation.guidelines import guidelines_html
from annotation.label_studio import LabelStudioApi
from annotation.labelling import AXIS_WORDS, labelling_config, result_of, task_data
from annotation.opening import import_tasks, live_tasks
from annotation.pictures import picture_store
from annotation.vocabulary import Decision, Page, Record
from infra.content import canonical_json
from infra.errors import EditLoopError
from infra.settings import ServiceSettings

FACTS = "editloop-adjudication: "
"""Starts the line of a project's description that says whose queue it is, as JSON."""
TITLE = 50
"""Characters of a project's title that Label Studio takes."""
GUIDELINES = """# Adjudication

Annotators disagree on these tasks. Rate every candidate as you see it, and write the reason for your decision.

You do not see their votes before you have decided. Afterwards `editloop campaign adjudicate` puts them on the page:
open the task again, and each annotator's ratings stand beside yours under their name. You may then change your mind.
"""


class Queue(Record):
    """The state of a campaign's adjudication."""

    url: str
    conflicts: int
    """Tasks that annotators disagree on now."""
    tasks: int
    """Tasks in the lead's queue; one that was in conflict once stays."""
    decided: int
    """Tasks with the lead's ratings and reason, or the lead's reason why they cannot be judged."""
    shown: int
    """Decided tasks on which the votes are shown to the lead."""


def adjudicate(
    client: Any,
    settings: ServiceSettings,
    campaign: Campaign,
    folder: Path,
    pages: Mapping[str, Page],
    answers: Answers,
) -> Queue:
    """Bring the lead's queue up to date: open it, add tasks that are in conflict now, show votes on what is decided.

    `folder` is the campaign's; `answers` are those that Label Studio has now. Safe to call again at any time. Raises
    EditLoopError where the campaign has no lead, or its labelling config was changed.
    """
    if campaign.lead is None:
        raise EditLoopError(
            f"Campaign {campaign.name} has no lead who could decide: name one (`lead:` in its file) and open it again."
        )
    if faults := config_faults(client, campaign):
        raise EditLoopError(" ".join(faults))
    found, _ = judgements(pages, answers)
    tasks = conflicts(found)
    wanted = {key: page for key, page in pages.items() if page.kind == "task" and page.task_id in tasks}
    queue = find_queue(client, settings, campaign)
    if queue is None:
        if not wanted:
            return Queue(url="", conflicts=0, tasks=0, decided=0, shown=0)
        queue = _open(client, settings, campaign, folder)
    store, api = picture_store(settings), LabelStudioApi(settings)
    store.attach(client, queue.project_id, campaign.key)
    there = {task["data"]["key"] for task in live_tasks(api, queue, "task_only")}
    shown = [page for key, page in pages.items() if key in there or key in wanted]
    rows = import_tasks(
        api, queue, [task_data(page, lambda sha256: store.address(campaign.key, sha256)) for page in shown]
    )
    decided = [one.page for one in _decided(_lead_answers(client, settings, queue, pages))]
    for key in track(decided, "votes", transient=True):
        _show_votes(api, rows[key].id, [one for one in answers.counting().values() if one.page == key])
    return Queue(url=queue.url, conflicts=len(tasks), tasks=len(shown), decided=len(decided), shown=len(decided))


def find_queue(client: Any, settings: ServiceSettings, campaign: Campaign) -> Campaign | None:
    """The lead's project of a campaign, as a campaign of one annotator; None where none was opened."""
    for project in client.projects.list():
        lines = [line for line in (project.description or "").splitlines() if line.startswith(FACTS)]
        if lines and json.loads(lines[0].removeprefix(FACTS))["campaign_key"] == campaign.key:
            return _queue(campaign, project.id, settings)
    return None


def queue_state(
    client: Any, settings: ServiceSettings, campaign: Campaign, pages: Mapping[str, Page]
) -> dict[str, Any] | None:
    """{"url", "tasks", "decided"} of the lead's queue, as it is; None where none was opened."""
    queue = find_queue(client, settings, campaign)
    if queue is None:
        return None
    answers = _lead_answers(client, settings, queue, pages)
    return {"url": queue.url, "tasks": len(answers.rows), "decided": len(_decided(answers))}


def decisions(client: Any, settings: ServiceSettings, campaign: Campaign, pages: Mapping[str, Page]) -> list[Decision]:
    """What the lead decided, sorted by task and candidate. A page that the lead cannot judge either gives none."""
    queue = find_queue(client, settings, campaign)
    found = []
    for answer in _decided(_lead_answers(client, settings, queue, pages)) if queue else []:
        page = pages[answer.page]
        for place, (candidate, rating) in enumerate(zip(page.candidates, answer.ratings, strict=True)):
            if rating and page.candidates.index(candidate) == place:
                found.append(
                    Decision.model_validate(
                        {
                            "task_id": page.task_id,
                            "candidate_id": candidate,
                            "lead": answer.annotator,
                            **rating,
                            "reason": answer.note,
                            "annotation_id": answer.annotation_id,
                            "created_at": answer.created_at,
                        }
                    )
                )
    return sorted(found, key=lambda one: (one.task_id, one.candidate_id))


def _queue(campaign: Campaign, project_id: int, settings: ServiceSettings) -> Campaign:
    url = f"{settings.require('label_studio_url')}/projects/{project_id}/data?labeling=1"
    people = (str(campaign.lead),)
    return campaign.model_copy(update={"project_id": project_id, "url": url, "overlap": 1, "annotators": people})


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
        show_skip_button=True,
        enable_empty_annotation=False,
        # Else a page would begin with a vote filled in.
        show_collab_predictions=False,
    )
    return _queue(campaign, project.id, settings)


def _lead_answers(client: Any, settings: ServiceSettings, queue: Campaign, pages: Mapping[str, Page]) -> Answers:
    return read_answers(export(settings, queue), pages, names_by_id(client, queue.annotators))


def _decided(answers: Answers) -> list[Answer]:
    """The lead's answers that have a reason, one a page."""
    return [one for one in answers.counting().values() if one.note or one.reason]


def _show_votes(api: LabelStudioApi, task: int, votes: list[Answer]) -> None:
    """Put the votes on a decided task, each as a prediction by the voter's name, as the voter says now."""
    there = {one["model_version"]: one for one in api.call("GET", "/api/predictions/", params={"task": task})}
    for vote in votes:
        result, before = result_of(vote.ratings, vote.reason), there.get(vote.annotator)
        if before and _said(before["result"]) == _said(result):
            continue
        if before:
            api.call("DELETE", f"/api/predictions/{before['id']}/")
        told = {"task": task, "result": result, "model_version": vote.annotator}
        api.call("POST", "/api/predictions/", json=told)


def _said(result: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["from_name"]: item["value"] for item in result}

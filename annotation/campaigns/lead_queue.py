"""Read the lead's queue of a campaign (its tasks in conflict) and the decisions in it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from annotation.campaigns.accounts import names_by_id
from annotation.campaigns.answers import (
    AnswerExport,
    CampaignAnswers,
    PageAnswer,
    answer_digests,
    answers_sha256,
    export_answers,
    read_answers,
)
from annotation.campaigns.campaign import Campaign
from editloop.data.vocabulary import Decision, Page
from infra.settings import ServiceSettings

FACTS = "editloop-adjudication: "
"""Prefix of the line in a project's description that names the queue's campaign and lead as JSON."""


@dataclass(frozen=True)
class Snapshot:
    """Label Studio's exports of a campaign's annotations and of the lead's decisions at one time."""

    votes: AnswerExport
    decisions: AnswerExport
    """Export of the lead's queue; empty if there is none."""

    @cached_property
    def digests(self) -> dict[int, str]:
        """Content address of each annotation, by its id."""
        return answer_digests(self.votes) | answer_digests(self.decisions)

    @property
    def sha256(self) -> str:
        """Content address of all annotations: equal for two exports between which nothing changed."""
        return answers_sha256(self.digests)


def snapshot(client: Any, settings: ServiceSettings, campaign: Campaign) -> Snapshot:
    """Export a campaign's annotations and its lead's decisions as Label Studio has them now.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        campaign: The campaign.
    """
    queue = find_queue(client, settings, campaign)
    no_decisions = AnswerExport(b"[]", ())
    return Snapshot(export_answers(settings, campaign), export_answers(settings, queue) if queue else no_decisions)


def find_queue(client: Any, settings: ServiceSettings, campaign: Campaign) -> Campaign | None:
    """Find the lead's queue of a campaign.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address of Label Studio.
        campaign: The campaign.

    Returns:
        The queue, as a campaign with the lead as its only annotator; None if there is none.
    """
    for project in client.projects.list():
        lines = [line for line in (project.description or "").splitlines() if line.startswith(FACTS)]
        if lines and json.loads(lines[0].removeprefix(FACTS))["campaign_key"] == campaign.key:
            return queue_of(campaign, project.id, settings)
    return None


def queue_of(campaign: Campaign, project_id: int, settings: ServiceSettings) -> Campaign:
    """Return the lead's queue of a campaign, as a campaign with the lead as its only annotator.

    Args:
        campaign: The campaign.
        project_id: Label Studio's id of the queue's project.
        settings: Address of Label Studio.
    """
    url = settings.project_link(project_id)
    people = (str(campaign.lead),)
    return campaign.model_copy(update={"project_id": project_id, "url": url, "overlap": 1, "annotators": people})


def lead_answers(client: Any, campaign: Campaign, pages: Mapping[str, Page], export: AnswerExport) -> CampaignAnswers:
    """Read the lead's answers from an export of the queue.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        campaign: The campaign.
        pages: The campaign's pages by key.
        export: Label Studio's export of the queue.
    """
    return read_answers(export, pages, names_by_id(client, [campaign.lead] if campaign.lead else []))


def decided(answers: CampaignAnswers) -> list[PageAnswer]:
    """Return the lead's answers that decide a page: with a reason, or that the page cannot be judged.

    Args:
        answers: The lead's answers.

    Returns:
        One answer per page.
    """
    return [answer for answer in answers.counting().values() if answer.note or answer.reason]


def decisions(pages: Mapping[str, Page], answers: CampaignAnswers) -> list[Decision]:
    """Return the lead's decisions on candidates. A page that the lead cannot judge gives none.

    Args:
        pages: The campaign's pages by key.
        answers: The lead's answers.

    Returns:
        The decisions, sorted by task and candidate.
    """
    lead_decisions = []
    for answer in decided(answers):
        page = pages[answer.page]
        for position, (candidate, rating) in enumerate(zip(page.candidates, answer.ratings, strict=True)):
            if rating and page.candidates.index(candidate) == position:
                fields: dict[str, Any] = {
                    "task_id": page.task_id,
                    "candidate_id": candidate,
                    "lead": answer.annotator,
                    "reason": answer.note,
                    "annotation_id": answer.annotation_id,
                    "created_at": answer.created_at,
                }
                lead_decisions.append(Decision.model_validate({**fields, **rating}))
    return sorted(lead_decisions, key=lambda decision: (decision.task_id, decision.candidate_id))

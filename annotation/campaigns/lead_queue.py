"""What the lead decided: the queue of a campaign's tasks in conflict, read."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from annotation.campaigns.accounts import names_by_id
from annotation.campaigns.answers import (
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
"""Starts the line of a project's description that says whose queue it is, as JSON."""


class Snapshot(NamedTuple):
    """Everything that was said in a campaign until one moment, as Label Studio exports it."""

    votes: bytes
    decisions: bytes
    """Of the lead's queue; an empty list where none was opened."""

    @property
    def digests(self) -> dict[int, str]:
        """Content address of what each annotation says, by its id."""
        return answer_digests(self.votes) | answer_digests(self.decisions)

    @property
    def sha256(self) -> str:
        """Content address of all of it: another export without a change has the same."""
        return answers_sha256(self.digests)


def snapshot(client: Any, settings: ServiceSettings, campaign: Campaign) -> Snapshot:
    """What Label Studio has of the campaign now: votes, and the lead's decisions."""
    queue = find_queue(client, settings, campaign)
    return Snapshot(export_answers(settings, campaign), export_answers(settings, queue) if queue else b"[]")


def find_queue(client: Any, settings: ServiceSettings, campaign: Campaign) -> Campaign | None:
    """The lead's project of a campaign, as a campaign of one annotator; None where none was opened."""
    for project in client.projects.list():
        lines = [line for line in (project.description or "").splitlines() if line.startswith(FACTS)]
        if lines and json.loads(lines[0].removeprefix(FACTS))["campaign_key"] == campaign.key:
            return queue_of(campaign, project.id, settings)
    return None


def queue_of(campaign: Campaign, project_id: int, settings: ServiceSettings) -> Campaign:
    """The campaign as its lead's project asks it."""
    url = f"{settings.require('label_studio_url')}/projects/{project_id}/data?labeling=1"
    people = (str(campaign.lead),)
    return campaign.model_copy(update={"project_id": project_id, "url": url, "overlap": 1, "annotators": people})


def lead_answers(client: Any, campaign: Campaign, pages: Mapping[str, Page], exported: bytes) -> CampaignAnswers:
    """What the lead said in an export of the queue."""
    return read_answers(exported, pages, names_by_id(client, [campaign.lead] if campaign.lead else []))


def decided(answers: CampaignAnswers) -> list[PageAnswer]:
    """The lead's answers that have a reason, one a page."""
    return [answer for answer in answers.counting().values() if answer.note or answer.reason]


def decisions(pages: Mapping[str, Page], answers: CampaignAnswers) -> list[Decision]:
    """What the lead decided, sorted by task and candidate. A page that the lead cannot judge either gives none."""
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

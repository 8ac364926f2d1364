"""Read the answers of a campaign and its lead's queue (the tasks in conflict), and the decisions in it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from annotation.campaigns.answer_export import AnswerExport, export_answers, kept_export
from annotation.campaigns.answers import CampaignAnswers, PageAnswer, answers_sha256, read_answers
from annotation.campaigns.kept_answers import KeptAnswer, read_kept_answers
from annotation.campaigns.label_studio import NotThereError
from annotation.campaigns.record import CampaignRecord
from annotation.campaigns.training import TrainingState, training_state
from editloop.data.vocabulary import Decision, Page
from infra.settings import ServiceSettings

NO_ANSWERS = AnswerExport(b"[]", ())


@dataclass(frozen=True)
class Snapshot:
    """A campaign's answers and its lead's decisions at one time, with Label Studio's exports."""

    votes: AnswerExport
    decisions: AnswerExport
    """Export of the lead's queue; empty if there is none."""
    answers: CampaignAnswers
    lead: CampaignAnswers
    """The lead's answers."""
    training: TrainingState | None = None
    """How the annotators do in the training round; None without one."""

    @cached_property
    def digests(self) -> dict[int, str]:
        """Content address of each answer, by annotation id."""
        return self.answers.digests | self.lead.digests

    @property
    def sha256(self) -> str:
        """Content address of all answers: equal for two snapshots between which no annotator or lead changed one."""
        return answers_sha256(self.digests)

    def kept_answers(self) -> list[KeptAnswer]:
        """Return the answers as the campaign's record keeps them."""
        return [
            KeptAnswer(
                annotation_id=answer.annotation_id,
                queue=queue,
                page=answer.page,
                annotator=answer.annotator,
                skipped=answer.skipped,
                result=answer.result,
                seconds=answer.seconds,
                created_at=answer.created_at,
            )
            for queue, answers in ((False, self.answers), (True, self.lead))
            for answer in answers.given
            if answer.annotator is not None
        ]


def snapshot(settings: ServiceSettings, record: CampaignRecord, pages: Mapping[str, Page]) -> Snapshot:
    """Read a campaign's answers and its lead's decisions as Label Studio has them now.

    Args:
        settings: Address and token of Label Studio.
        record: The campaign's record.
        pages: The campaign's pages by key.

    Raises:
        EditLoopError: The project was deleted, or Label Studio does not answer.
    """
    votes, training = export_answers(settings, record.campaign), training_state(settings, record)
    untrained = training.untrained(record) if training else frozenset()
    answers, queue = replace(read_answers(votes, pages, record), untrained=untrained), record.queue
    if queue is None:
        return Snapshot(votes, NO_ANSWERS, answers, CampaignAnswers((), {}), training)
    try:
        decisions = export_answers(settings, queue.campaign)
    except NotThereError:  # deleted: `adjudicate` makes it anew, with the same decisions
        decisions = kept_export(answer for answer in read_kept_answers(record.campaign.key).values() if answer.queue)
    return Snapshot(votes, decisions, answers, read_answers(decisions, pages, queue), training)


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

"""The training round of a campaign: who passed it, by the answers on gold pages in a project of their own.

Every page of the project has its known answer as a prediction. The label stream ("Label All Tasks") of Label Studio's
community edition does not show predictions of such a project; a page that is opened from the project's list of tasks
shows it beside the answers. Nothing keeps an annotator from opening the list first. Whoever changes an answer may have
copied it, so changed answers count as wrong.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from annotation.campaigns.answer_export import AnswerExport, export_answers
from annotation.campaigns.answers import PageAnswer, read_answers
from annotation.campaigns.label_studio import NotThereError
from annotation.campaigns.record import CampaignRecord, Trained, append_event, now, opened_file
from editloop.data.vocabulary import AXES, Page, Record
from infra.settings import ServiceSettings

TRAINING_PAGES = "training.jsonl"
"""File of a campaign's folder and of its record's opening: the training pages with their known answers."""
CHANGED_SECONDS = 5
"""An answer that was updated so long after it was submitted was changed. Label Studio itself takes milliseconds."""


class TrainingResult(Record):
    """How one annotator does in the training round."""

    answered: int
    pages: int
    right: float | None
    """Share of the known ratings that are right, 0..1; None before the first answer."""
    changed: int
    """Answers that were changed after they were submitted; all their ratings count as wrong."""
    passed: bool
    """Whether all pages were answered and enough was right, now or at an earlier time."""


class TrainingState(Record):
    """State of a campaign's training round."""

    url: str
    deleted: bool
    """Whether the project was deleted; who passed before has passed."""
    passing: float
    """Share of the known ratings to get right."""
    required: bool
    """Whether answers in the campaign count only from annotators who passed."""
    annotators: dict[str, TrainingResult]
    """Results of the present annotators."""

    def untrained(self, record: CampaignRecord) -> frozenset[str]:
        """Return the annotators, present and former, whose answers in the campaign do not count.

        Args:
            record: The campaign's record.
        """
        unfinished = {name for name, result in self.annotators.items() if not result.passed}
        return former_untrained(record) | (unfinished if self.required else set())


def former_untrained(record: CampaignRecord) -> frozenset[str]:
    """Return the former annotators whose answers do not count because they never passed a required training.

    Args:
        record: The campaign's record.
    """
    terms = record.campaign.training
    return frozenset(record.left.keys() - record.passed if terms and terms.required else ())


def training_state(settings: ServiceSettings, record: CampaignRecord) -> TrainingState | None:
    """Return how the annotators do in the training round, from Label Studio's present answers and the record.

    Args:
        settings: Address and token of Label Studio.
        record: The campaign's record.

    Returns:
        The state; None where the campaign has no training round.
    """
    terms, training = record.campaign.training, record.training
    if terms is None or training is None:
        return None
    deleted = False
    try:
        export = export_answers(settings, training.campaign)
    except NotThereError:
        export, deleted = AnswerExport(b"[]", ()), True
    return TrainingState(
        url=training.campaign.url,
        deleted=deleted,
        passing=terms.passing,
        required=terms.required,
        annotators=training_results(training_pages(record), export, training),
    )


def training_pages(record: CampaignRecord) -> dict[str, Page]:
    """Return the training pages that a campaign opened with, by key.

    Args:
        record: The record of a campaign with a training round.
    """
    pages = map(Page.model_validate_json, opened_file(record, TRAINING_PAGES).splitlines())
    return {page.key: page for page in pages}


def training_results(
    pages: Mapping[str, Page], export: AnswerExport, training: CampaignRecord
) -> dict[str, TrainingResult]:
    """Compare the answers on training pages with the known ones.

    Args:
        pages: The training pages by key.
        export: Label Studio's export of the training project.
        training: The training round, as the campaign's record has it.

    Returns:
        Results by annotator, for all present annotators of the campaign.
    """
    changed = {
        annotation["id"]
        for task in export.tasks
        for annotation in task.annotations
        if _seconds_between(annotation["created_at"], annotation["updated_at"]) > CHANGED_SECONDS
    }
    by_annotator: dict[str, dict[str, PageAnswer]] = {name: {} for name in training.campaign.annotators}
    for (key, annotator), answer in read_answers(export, pages, training).counting().items():
        if key in pages and annotator in by_annotator:
            by_annotator[annotator][key] = answer
    passing = training.campaign.training.passing if training.campaign.training else 0.0
    results = {}
    for name, answers in by_annotator.items():
        ratings = [
            answer.annotation_id not in changed and right
            for key, answer in answers.items()
            for right in _known_ratings_right(pages[key], answer)
        ]
        share = sum(ratings) / len(ratings) if ratings else None
        enough = len(answers) == len(pages) and share is not None and share >= passing
        results[name] = TrainingResult(
            answered=len(answers),
            pages=len(pages),
            right=share,
            changed=sum(answer.annotation_id in changed for answer in answers.values()),
            passed=enough or name in training.passed,
        )
    return results


def keep_trained(record: CampaignRecord, state: TrainingState | None) -> CampaignRecord:
    """Record who has passed the training since the last time; without news nothing is recorded.

    Args:
        record: The campaign's record.
        state: State of the training; None without one.

    Returns:
        The record as it is then.
    """
    passed = {name for name, result in state.annotators.items() if result.passed} if state else set()
    if not passed - record.passed:
        return record
    news = tuple(sorted(passed - record.passed))
    append_event(Trained(key=record.campaign.key, at=now(), by="EditLoop", passed=news), record.campaign.name)
    return replace(record, passed=record.passed | passed)


def _known_ratings_right(page: Page, answer: PageAnswer) -> list[bool]:
    """Return, for each rating of the page that is known, whether the answer has it right."""
    right = []
    for position, candidate in enumerate(page.candidates):
        if page.candidates.index(candidate) == position:
            rating, known = answer.ratings[position], page.expected.get(candidate, {})
            right += [
                axis in rating and known[axis][0] <= rating[axis] <= known[axis][1] for axis in AXES if axis in known
            ]
    return right


def _seconds_between(earlier: str, later: str) -> float:
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()

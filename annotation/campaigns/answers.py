"""A campaign's answers: read them from an export, measure progress, and extract judgements."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Literal, NamedTuple

from annotation.campaigns.answer_export import Annotation, AnswerExport, ExportedTask
from annotation.campaigns.kept_answers import KeptAnswer, ResultItem, read_kept_answers
from annotation.campaigns.labelling import faults_of, note_of, ratings_of, reason_of
from annotation.campaigns.record import CampaignRecord
from editloop.content import sha256_json
from editloop.data.vocabulary import Axis, CannotJudge, Judgement, Kind, Page, Record

SHOWN_IDS = 10


Standing = Literal["own", "kept", "guest", "deleted account", "changed by others"]
"""Whose an annotation is:

- own: an annotator's of the campaign, as its author left it.
- kept: an annotator's, taken from the campaign's record because somebody else changed it, or its account was deleted.
- guest: of an account that is none of the annotators', or was not any more.
- deleted account: of a deleted account that the record does not name.
- changed by others: made or changed by another account than its author's, with nothing in the record.
"""


class PageAnswer(NamedTuple):
    """One annotation, decoded for the page that it is on."""

    annotation_id: int
    page: str
    """Key of the page in the data of Label Studio's task."""
    task_id: int
    """Label Studio's id of the task."""
    annotator: str | None
    """None: the answer is none of an annotator of the campaign."""
    standing: Standing
    skipped: bool
    """Whether the annotator skipped the page in Label Studio."""
    result: list[ResultItem]
    """What the answer says, as Label Studio holds it."""
    ratings: tuple[dict[Axis, int], ...]
    """Ratings of each candidate in the page's order; {} if it is not rated on all axes. () for an unknown page."""
    reason: str | None
    """Why the page cannot be judged; None if no reason is given."""
    note: str | None
    """The lead's reason for a decision, or what an annotator's reason "other" is."""
    seconds: float | None
    """Time spent on the page, as Label Studio measured it."""
    created_at: str
    faults: tuple[str, ...]
    """Parts of the annotation that cannot come from the page, one sentence each."""

    @property
    def counts(self) -> bool:
        """Whether this is an answer by an annotator of the campaign that is complete.

        It rates all candidates, or says why the page cannot be judged. A bare skip is no answer.
        """
        judged = bool(self.ratings) and all(self.ratings) and not self.skipped
        return self.annotator is not None and (judged or self.reason is not None)

    @property
    def digest(self) -> str:
        """Content address of the page, its annotator and the answer."""
        controls = sorted([str(item.get("from_name")), sha256_json(item.get("value"))] for item in self.result)
        return sha256_json([self.page, self.annotator, self.skipped, controls])


@dataclass(frozen=True)
class CampaignAnswers:
    """All annotations and tasks of a campaign in one export."""

    given: tuple[PageAnswer, ...]
    """All annotations by anyone, sorted by id (oldest first)."""
    rows: Mapping[str, int]
    """Label Studio's task id by page key."""
    untrained: frozenset[str] = frozenset()
    """Annotators who have not passed a training that is required; none of their answers counts."""
    drafts: int = 0
    """Answers that were begun and not submitted."""
    predictions: int = 0
    """Answers that a program suggests on the pages."""
    duplicates: int = 0
    """Tasks that show a page that another task shows too."""

    @cached_property
    def digests(self) -> dict[int, str]:
        """Content address of each annotator's answer, by annotation id."""
        return {answer.annotation_id: answer.digest for answer in self.given if answer.annotator is not None}

    def disturbed(self, pages: Mapping[str, Page]) -> bool:
        """Return whether the project needs mending: a page lacks its only task, or an answer does not count.

        Args:
            pages: The campaign's pages by key.
        """
        uncounted = any(answer.annotator is None or answer.standing == "kept" for answer in self.given)
        return bool(uncounted or self.predictions or self.duplicates or pages.keys() - self.rows.keys())

    def counting(self) -> dict[tuple[str, str], PageAnswer]:
        """Return the answer that counts, by (page, annotator): the latest one that answers the page."""
        return {
            (answer.page, str(answer.annotator)): answer
            for answer in self.given
            if answer.counts and answer.annotator not in self.untrained
        }


class CampaignProgress(Record):
    """Progress of a campaign."""

    pages: int
    answered: int
    """Pages with all wanted answers: enough annotators rated all candidates or said why the page cannot be judged."""
    annotations: int
    """Answers that count, at most one per page and annotator."""
    wanted: int
    """Answers that complete the campaign, with the annotators that it has now."""
    by_annotator: dict[str, int]
    """Number of `annotations` by each annotator, former ones included."""
    cannot: dict[str, int]
    """Number of `annotations` that say that the page cannot be judged, by reason."""
    skipped: int
    """Skipped annotations without a reason."""
    unfinished: int
    """Annotations that are not skipped but lack a rating."""
    others: int
    """Annotations by accounts that are not, or were not any more, the campaign's annotators; they are not used."""
    deleted_accounts: int
    """Annotations of deleted accounts that the campaign's record does not name; they are not used."""
    changed_by_others: list[str]
    """Annotations that another account than the author's made or changed last; they are not used."""
    kept: int
    """Answers that are read from the campaign's record, because Label Studio no longer has them as they were given."""
    drafts: int
    """Answers that were begun and not submitted."""
    predictions: int
    """Suggested answers on the pages, which annotators might take over."""
    duplicates: int
    """Tasks that show a page a second time."""
    repeated: int
    """Answers that a later answer by the same annotator on the same page replaces."""
    untrained: int = 0
    """Answers by annotators who have not passed a training that is required; they count once the annotator passes."""
    missing: int
    """Pages that are not in Label Studio."""
    faults: list[str]
    """Parts of the annotators' annotations that cannot come from the campaign's pages, one sentence each."""

    @property
    def complete(self) -> bool:
        """Whether all pages are answered."""
        return self.answered == self.pages


def answers_sha256(digests: Mapping[int, str]) -> str:
    """Return the content address of all answers together.

    Args:
        digests: Content addresses by annotation id.
    """
    return sha256_json(sorted(digests.items()))


def changed_annotations(before: Mapping[int, str], now: Mapping[int, str]) -> str:
    """Describe how annotations changed, such as "2 edited (annotation 4, 9), 1 added (annotation 12)".

    Args:
        before: Earlier content addresses by annotation id.
        now: Present content addresses by annotation id.

    Returns:
        The description; it lists at most SHOWN_IDS ids of each kind.
    """
    kinds = {
        "edited": [
            annotation_id for annotation_id in before.keys() & now.keys() if before[annotation_id] != now[annotation_id]
        ],
        "added": now.keys() - before.keys(),
        "deleted": before.keys() - now.keys(),
    }
    phrases = []
    for word, ids in kinds.items():
        if ids:
            listed_ids = ", ".join(map(str, sorted(ids)[:SHOWN_IDS]))
            phrases.append(f"{len(ids)} {word} (annotation {listed_ids}{', ...' if len(ids) > SHOWN_IDS else ''})")
    return ", ".join(phrases) or "nothing changed"


def read_answers(export: AnswerExport, pages: Mapping[str, Page], record: CampaignRecord) -> CampaignAnswers:
    """Decode the annotations in an export, each as its author left it.

    Whoever may log in to Label Studio can change any annotation, create one in another's name, or delete an account. An
    annotation counts where its author was the last to change it. Otherwise the record's copy of it counts, or nothing.

    Args:
        export: Label Studio's export.
        pages: The campaign's pages by key.
        record: The campaign's record, which names the people. Its copies of answers are read only if they are needed.
    """
    answers: list[PageAnswer] = []
    rows: dict[str, int] = {}
    annotations = [annotation for task in export.tasks for annotation in task.annotations]
    given_ids = {annotation["id"] for annotation in annotations if annotation["import_id"] is None}
    unsettled = any(not _is_own(annotation) or annotation["import_id"] for annotation in annotations)
    kept = read_kept_answers(record.campaign.key) if unsettled else {}
    for task in export.tasks:
        rows.setdefault(task.key, task.task_id)
        for annotation in task.annotations:
            answers.append(_decode(annotation, task, pages.get(task.key), record, kept, given_ids))
    return CampaignAnswers(
        given=tuple(sorted(answers, key=lambda answer: answer.annotation_id)),
        rows=rows,
        drafts=sum(task.drafts for task in export.tasks),
        predictions=sum(task.predictions for task in export.tasks),
        duplicates=len(export.tasks) - len(rows),
    )


def _is_own(annotation: Annotation) -> bool:
    return annotation["completed_by"] is not None and annotation["completed_by"] == annotation["updated_by"]


def _decode(
    annotation: Annotation,
    task: ExportedTask,
    page: Page | None,
    record: CampaignRecord,
    kept: Mapping[int, KeptAnswer],
    given_ids: Collection[int],
) -> PageAnswer:
    imported = annotation["import_id"]
    # An answer that was put back has the id that it had: Label Studio's own ids may be given a second time.
    restored = imported is not None and imported in kept and imported not in given_ids
    annotation_id = imported if restored and imported is not None else annotation["id"]
    author, created_at = annotation["completed_by"], annotation["created_at"]
    result, skipped, seconds = annotation["result"], bool(annotation["was_cancelled"]), annotation.get("lead_time")
    copy = kept.get(annotation_id)
    annotator: str | None = None
    standing: Standing = "own"
    if author is not None and _is_own(annotation):
        annotator = record.annotator(author, datetime.fromisoformat(created_at))
        standing = "own" if annotator else "guest"
    elif copy and copy.page == task.key and record.accounts.get(author or 0, copy.annotator) == copy.annotator:
        annotator, standing, created_at = copy.annotator, "kept", copy.created_at
        result, skipped, seconds = copy.result, copy.skipped, copy.seconds
    elif author is None:
        standing = "deleted account"
    else:
        standing = "changed by others" if author in record.accounts else "guest"
    places = len(page.candidates) if page else 0
    who = annotator or record.accounts.get(author or 0) or standing
    where = f"Annotation {annotation['id']} by {who} on task {task.task_id}"
    faults = faults_of(result, places) if page else [f"It is on page {task.key}, which is none of the campaign's."]
    return PageAnswer(
        annotation_id=annotation_id,
        page=task.key,
        task_id=task.task_id,
        annotator=annotator,
        standing=standing,
        skipped=skipped,
        result=result,
        ratings=tuple(ratings_of(result, places)),
        reason=reason_of(result) if page else None,
        note=note_of(result),
        seconds=seconds,
        created_at=created_at,
        faults=tuple(f"{where}: {fault}" for fault in faults),
    )


def wanted_answers(record: CampaignRecord, pages: Mapping[str, Page], answers: CampaignAnswers) -> dict[str, int]:
    """Return how many answers complete each page.

    Pages that everybody was asked at the opening, such as gold and repeats, are asked of all present annotators, beside
    the answers of former ones.

    Args:
        record: The campaign's record.
        pages: Its pages by key.
        answers: Its answers.
    """
    present, everybody = record.campaign.annotators, len(record.opened.annotators)
    repeated = {page.task_id for page in pages.values() if page.kind == "repeat"}
    former = Counter(page for page, annotator in answers.counting() if annotator not in present)
    return {
        key: len(present) + former[key]
        if page.overlap == everybody and (page.kind != "task" or page.task_id in repeated)
        else page.overlap
        for key, page in pages.items()
    }


def progress(record: CampaignRecord, pages: Mapping[str, Page], answers: CampaignAnswers) -> CampaignProgress:
    """Compute the progress of a campaign.

    Args:
        record: The campaign's record.
        pages: Its pages by key.
        answers: Its answers.
    """
    counting = answers.counting()
    wanted = wanted_answers(record, pages, answers)
    answer_counts = Counter(page for page, _ in counting)
    by_annotator = Counter(annotator for _, annotator in counting)
    standings = Counter(answer.standing for answer in answers.given)
    cannot = Counter(answer.reason for answer in counting.values() if answer.reason)
    campaign_answers = [answer for answer in answers.given if answer.annotator is not None and answer.page in pages]
    return CampaignProgress(
        pages=len(pages),
        answered=sum(answer_counts[key] >= wanted[key] for key in pages),
        annotations=len(counting),
        wanted=sum(wanted.values()),
        by_annotator={name: by_annotator[name] for name in sorted({*record.campaign.annotators, *by_annotator})},
        cannot={str(reason): count for reason, count in sorted(cannot.items(), key=str)},
        skipped=sum(answer.skipped and not answer.counts for answer in campaign_answers),
        unfinished=sum(not answer.skipped and not answer.counts for answer in campaign_answers),
        others=standings["guest"],
        deleted_accounts=standings["deleted account"],
        changed_by_others=[
            f"task {answer.task_id}, annotation {answer.annotation_id}"
            for answer in answers.given
            if answer.standing == "changed by others"
        ],
        kept=standings["kept"],
        drafts=answers.drafts,
        predictions=answers.predictions,
        duplicates=answers.duplicates,
        repeated=sum(answer.counts for answer in campaign_answers if answer.annotator not in answers.untrained)
        - len(counting),
        untrained=sum(answer.counts for answer in campaign_answers if answer.annotator in answers.untrained),
        missing=len(pages.keys() - answers.rows.keys()),
        faults=[fault for answer in answers.given if answer.annotator is not None for fault in answer.faults],
    )


def extract_judgements(
    pages: Mapping[str, Page], answers: CampaignAnswers, kinds: Sequence[Kind] = ("task",)
) -> tuple[list[Judgement], list[CannotJudge]]:
    """Return the judgements on pages of some kinds, and the answers that such a page cannot be judged.

    If an annotator answered a page twice, the later answer counts. If a page shows a candidate twice, its first
    position counts.

    Args:
        pages: The campaign's pages by key.
        answers: The campaign's answers.
        kinds: Kinds of pages to read.

    Returns:
        The judgements, sorted by task, candidate and annotator, and the refusals, sorted by task and annotator.
    """
    judgements, refused = [], []
    for (key, annotator), answer in answers.counting().items():
        page = pages[key]
        if page.kind not in kinds:
            continue
        common: dict[str, Any] = {
            "kind": page.kind,
            "task_id": page.task_id,
            "annotator": annotator,
            "annotation_id": answer.annotation_id,
            "created_at": answer.created_at,
        }
        if answer.reason:
            refused.append(CannotJudge.model_validate({**common, "reason": answer.reason, "note": answer.note}))
            continue
        for position, (candidate, rating) in enumerate(zip(page.candidates, answer.ratings, strict=True)):
            if page.candidates.index(candidate) == position:
                fields = {"candidate_id": candidate, "position": position, "seconds": answer.seconds}
                judgements.append(Judgement.model_validate({**common, **fields, **rating}))
    judgements.sort(
        key=lambda judgement: (judgement.task_id, judgement.candidate_id, judgement.annotator, judgement.annotation_id)
    )
    return judgements, sorted(refused, key=lambda refusal: (refusal.task_id, refusal.annotator, refusal.annotation_id))

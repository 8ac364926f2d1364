"""A campaign's answers: export them, read the annotations, measure progress, and extract judgements."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tenacity import wait_fixed

from annotation.campaigns.accounts import author_id
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import faults_of, note_of, ratings_of, reason_of
from editloop.content import sha256_json
from editloop.data.vocabulary import Axis, CannotJudge, Judgement, Kind, Page, Record
from editloop.errors import EditLoopError
from editloop.retry import retry_call
from infra.settings import ServiceSettings

EXPORT_TRIES, SECONDS_BETWEEN = 3, 2.0
SHOWN_IDS = 10


class TruncatedExportError(Exception):
    """The export from Label Studio is truncated or lacks tasks."""


class ExportedTask(NamedTuple):
    """A task of an export, without the page's texts and pictures."""

    task_id: int
    """Label Studio's id."""
    key: str
    """Key of the page in the task's data; "None" where it has none."""
    annotations: list[dict[str, Any]]
    """Its annotations as Label Studio sends them."""


class AnswerExport(NamedTuple):
    """Label Studio's export of a project, parsed once."""

    data: bytes
    """The JSON as Label Studio sends it."""
    tasks: tuple[ExportedTask, ...]


class PageAnswer(NamedTuple):
    """One annotation, decoded for the page that it is on."""

    annotation_id: int
    page: str
    """Key of the page in the data of Label Studio's task."""
    annotator: str | None
    """None: the author is not an annotator of the campaign."""
    skipped: bool
    """Whether the annotator skipped the page in Label Studio."""
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


@dataclass(frozen=True)
class CampaignAnswers:
    """All annotations and tasks of a campaign in one export."""

    given: tuple[PageAnswer, ...]
    """All annotations by anyone, sorted by id (oldest first)."""
    rows: Mapping[str, int]
    """Label Studio's task id by page key."""

    def counting(self) -> dict[tuple[str, str], PageAnswer]:
        """Return the answer that counts, by (page, annotator): the latest one that answers the page."""
        return {(answer.page, str(answer.annotator)): answer for answer in self.given if answer.counts}


class CampaignProgress(Record):
    """Progress of a campaign."""

    pages: int
    answered: int
    """Pages for which `overlap` different annotators rated all candidates or said why the page cannot be judged."""
    annotations: int
    """Answers that count, at most one per page and annotator."""
    wanted: int
    """Answers that complete the campaign: the sum of its pages' overlaps."""
    by_annotator: dict[str, int]
    cannot: dict[str, int]
    """Number of `annotations` that say that the page cannot be judged, by reason."""
    skipped: int
    """Skipped annotations without a reason."""
    unfinished: int
    """Annotations that are not skipped but lack a rating."""
    others: int
    """Annotations by accounts that are not the campaign's annotators; they are not used."""
    repeated: int
    """Answers that a later answer by the same annotator on the same page replaces."""
    missing: int
    """Pages that are not in Label Studio."""
    faults: list[str]
    """Parts of the annotators' annotations that cannot come from the campaign's pages, one sentence each."""

    @property
    def complete(self) -> bool:
        """Whether all pages are answered."""
        return self.answered == self.pages


def export_answers(settings: ServiceSettings, campaign: Campaign) -> AnswerExport:
    """Export all tasks of a campaign from Label Studio, finished or not.

    A truncated export, or one with fewer tasks than the project, is requested again, up to EXPORT_TRIES times in all.

    Args:
        settings: Address and token of Label Studio.
        campaign: The campaign, or the lead's queue of one.

    Raises:
        EditLoopError: Every export was truncated, or Label Studio does not answer.
    """
    api = LabelStudioApi(settings)

    def once() -> AnswerExport:
        project = api.call("GET", f"/api/projects/{campaign.project_id}/", params={"include": "task_number"})
        expected_tasks = int(project["task_number"])
        path = f"/api/projects/{campaign.project_id}/export"
        export = read_export(api.fetch("GET", path, params={"exportType": "JSON", "download_all_tasks": "true"}))
        if len(export.tasks) < expected_tasks:
            raise TruncatedExportError(f"it has {len(export.tasks)} of {expected_tasks} tasks")
        return export

    try:
        return retry_call(
            once,
            lambda error: isinstance(error, TruncatedExportError),
            tries=EXPORT_TRIES,
            wait=wait_fixed(SECONDS_BETWEEN),
        )
    except TruncatedExportError as error:
        raise EditLoopError(
            f"Label Studio's export of campaign {campaign.name} (project {campaign.project_id}) was cut off "
            f"{EXPORT_TRIES} times: {error}. Nothing was written. Look at Label Studio's log and disk, then call again."
        ) from error


def read_export(data: bytes) -> AnswerExport:
    """Parse an export.

    Args:
        data: Label Studio's JSON export.

    Raises:
        TruncatedExportError: The export is no JSON list or ends too early.
    """
    tasks = (
        ExportedTask(int(row["id"]), str(row["data"].get("key")), row["annotations"]) for row in _iterate_rows(data)
    )
    return AnswerExport(data, tuple(tasks))


def _iterate_rows(exported: bytes) -> Iterator[dict[str, Any]]:
    """Yield the tasks of an export one at a time, because all of them decoded may not fit into memory."""
    text = exported.decode(errors="replace").strip()
    if not text.startswith("["):
        raise TruncatedExportError("it is no JSON list")
    decoder, at = json.JSONDecoder(), 1
    while True:
        while text[at : at + 1].isspace() or text[at : at + 1] == ",":
            at += 1
        if at == len(text) - 1 and text[at] == "]":
            return
        try:
            row, at = decoder.raw_decode(text, at)
        except ValueError as error:
            raise TruncatedExportError(f"its JSON ends at character {at}") from error
        yield row


def answer_digests(export: AnswerExport) -> dict[int, str]:
    """Return the content address of each annotation: its page, its author and its answer.

    Args:
        export: Label Studio's export.

    Returns:
        Content addresses by annotation id.
    """
    digests = {}
    for task in export.tasks:
        for annotation in task.annotations:
            control_digests = sorted(
                [str(item.get("from_name")), sha256_json(item.get("value"))] for item in annotation["result"]
            )
            digests[annotation["id"]] = sha256_json(
                [task.key, author_id(annotation), bool(annotation["was_cancelled"]), control_digests]
            )
    return digests


def answers_sha256(digests: Mapping[int, str]) -> str:
    """Return the content address of all answers together.

    Args:
        digests: Content addresses by annotation id, as `answer_digests` returns them.
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


def read_answers(export: AnswerExport, pages: Mapping[str, Page], names: Mapping[int, str]) -> CampaignAnswers:
    """Decode the annotations in an export.

    Args:
        export: Label Studio's export.
        pages: The campaign's pages by key.
        names: The campaign's annotators by Label Studio's user id.
    """
    answers, rows = [], {}
    for task_id, key, annotations in export.tasks:
        rows[key] = task_id
        page = pages.get(key)
        for annotation in annotations:
            result, places = annotation["result"], len(page.candidates) if page else 0
            annotator = names.get(author_id(annotation))
            where = f"Annotation {annotation['id']} by {annotator or 'a guest'} on task {task_id}"
            faults = faults_of(result, places) if page else [f"It is on page {key}, which is none of the campaign's."]
            answers.append(
                PageAnswer(
                    annotation_id=annotation["id"],
                    page=key,
                    annotator=annotator,
                    skipped=bool(annotation["was_cancelled"]),
                    ratings=tuple(ratings_of(result, places)),
                    reason=reason_of(result) if page else None,
                    note=note_of(result),
                    seconds=annotation.get("lead_time"),
                    created_at=annotation["created_at"],
                    faults=tuple(f"{where}: {fault}" for fault in faults),
                )
            )
    return CampaignAnswers(tuple(sorted(answers, key=lambda answer: answer.annotation_id)), rows)


def progress(campaign: Campaign, pages: Mapping[str, Page], answers: CampaignAnswers) -> CampaignProgress:
    """Compute the progress of a campaign.

    Args:
        campaign: The campaign.
        pages: Its pages by key.
        answers: Its answers.
    """
    counting = answers.counting()
    answer_counts = Counter(page for page, _ in counting)
    by_annotator = Counter(annotator for _, annotator in counting)
    cannot = Counter(answer.reason for answer in counting.values() if answer.reason)
    campaign_answers = [answer for answer in answers.given if answer.annotator is not None and answer.page in pages]
    return CampaignProgress(
        pages=len(pages),
        answered=sum(answer_counts[key] >= page.overlap for key, page in pages.items()),
        annotations=len(counting),
        wanted=sum(page.overlap for page in pages.values()),
        by_annotator={name: by_annotator[name] for name in campaign.annotators},
        cannot={str(reason): count for reason, count in sorted(cannot.items(), key=str)},
        skipped=sum(answer.skipped and not answer.counts for answer in campaign_answers),
        unfinished=sum(not answer.skipped and not answer.counts for answer in campaign_answers),
        others=sum(answer.annotator is None for answer in answers.given),
        repeated=sum(answer.counts for answer in campaign_answers) - len(counting),
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

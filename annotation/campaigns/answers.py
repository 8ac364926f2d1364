"""A campaign's answers: the export, what each annotation says, how far the campaign is, and the judgements in it."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_fixed

from annotation.campaigns.accounts import author_id
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import faults_of, note_of, ratings_of, reason_of
from editloop.content import sha256_json
from editloop.data.vocabulary import Axis, CannotJudge, Judgement, Kind, Page, Record
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings

EXPORT_TRIES, SECONDS_BETWEEN = 3, 2.0
SHOWN_IDS = 10


class TruncatedExportError(Exception):
    """An export that ends too early, or lacks tasks."""


class PageAnswer(NamedTuple):
    """One annotation, read against the page that it is on."""

    annotation_id: int
    page: str
    """Key of the page, as the task in Label Studio has it."""
    annotator: str | None
    """None: somebody who is not an annotator of the campaign."""
    skipped: bool
    ratings: tuple[dict[Axis, int], ...]
    """By place on the page; empty where the place is not rated on all axes. No places where the page is unknown."""
    reason: str | None
    """Why the page cannot be judged."""
    note: str | None
    """The lead's reason for a decision; annotators are not asked for one."""
    seconds: float | None
    created_at: str
    faults: tuple[str, ...]

    @property
    def counts(self) -> bool:
        """Whether it answers its page: all is rated, or it says why that cannot be. A bare skip does not."""
        judged = bool(self.ratings) and all(self.ratings) and not self.skipped
        return self.annotator is not None and (judged or self.reason is not None)


@dataclass(frozen=True)
class CampaignAnswers:
    """What Label Studio has of a campaign at one moment."""

    given: tuple[PageAnswer, ...]
    """Every annotation by anyone, oldest first."""
    rows: Mapping[str, int]
    """Label Studio's task id by page key."""

    def counting(self) -> dict[tuple[str, str], PageAnswer]:
        """By (page, annotator) the answer that counts: the latest one that answers the page."""
        return {(answer.page, str(answer.annotator)): answer for answer in self.given if answer.counts}


class CampaignProgress(Record):
    """How far a campaign is. A page is answered when `overlap` different annotators rated all of it or said why not."""

    pages: int
    answered: int
    annotations: int
    """Answers that count, one a page and annotator."""
    wanted: int
    by_annotator: dict[str, int]
    cannot: dict[str, int]
    """Of these, how many say that the page cannot be judged, by reason."""
    skipped: int
    """Annotations that give neither ratings nor a reason."""
    unfinished: int
    """Annotations that lack a rating."""
    others: int
    """Annotations by accounts that are not the campaign's annotators; not used."""
    repeated: int
    """Answers that a later one of the same annotator on the same page replaces."""
    missing: int
    """Pages that are not in Label Studio."""
    faults: list[str]
    """What cannot come from the campaign's pages, a sentence each."""

    @property
    def complete(self) -> bool:
        return self.answered == self.pages


def export_answers(settings: ServiceSettings, campaign: Campaign) -> bytes:
    """Label Studio's JSON export of all tasks of the campaign, finished or not.

    An export that is cut off, or has fewer tasks than the project, is asked for again, EXPORT_TRIES times in all; then
    EditLoopError.
    """
    api = LabelStudioApi(settings)

    def once() -> bytes:
        project = api.call("GET", f"/api/projects/{campaign.project_id}/", params={"include": "task_number"})
        expected_tasks = int(project["task_number"])
        path = f"/api/projects/{campaign.project_id}/export"
        data = api.fetch("GET", path, params={"exportType": "JSON", "download_all_tasks": "true"})
        exported_tasks = sum(1 for _ in iterate_tasks(data))
        if exported_tasks < expected_tasks:
            raise TruncatedExportError(f"it has {exported_tasks} of {expected_tasks} tasks")
        return data

    retrying = Retrying(
        retry=retry_if_exception_type(TruncatedExportError),
        stop=stop_after_attempt(EXPORT_TRIES),
        wait=wait_fixed(SECONDS_BETWEEN),
        reraise=True,
    )
    try:
        return retrying(once)
    except TruncatedExportError as error:
        raise EditLoopError(
            f"Label Studio's export of campaign {campaign.name} (project {campaign.project_id}) was cut off "
            f"{EXPORT_TRIES} times: {error}. Nothing was written. Look at Label Studio's log and disk, then call again."
        ) from error


def iterate_tasks(exported: bytes) -> Iterator[dict[str, Any]]:
    """The tasks of an export one at a time: as objects a large one would fill the memory. Cut where it ends early."""
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


def answer_digests(exported: bytes) -> dict[int, str]:
    """Content address of what each annotation says, on which page and by whom, by the annotation's id."""
    digests = {}
    for row in iterate_tasks(exported):
        for annotation in row["annotations"]:
            control_digests = sorted(
                [str(item.get("from_name")), sha256_json(item.get("value"))] for item in annotation["result"]
            )
            digests[annotation["id"]] = sha256_json(
                [row["data"].get("key"), author_id(annotation), bool(annotation["was_cancelled"]), control_digests]
            )
    return digests


def answers_sha256(digests: Mapping[int, str]) -> str:
    """Content address of all answers from those of the annotations."""
    return sha256_json(sorted(digests.items()))


def changed_annotations(before: Mapping[int, str], now: Mapping[int, str]) -> str:
    """What became of the annotations, by their ids: "2 edited (annotation 4, 9), 1 added (annotation 12)"."""
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


def read_answers(exported: bytes, pages: Mapping[str, Page], names: Mapping[int, str]) -> CampaignAnswers:
    """What the annotations in an export say. `names` are the campaign's annotators by Label Studio's user id."""
    answers, rows = [], {}
    for row in iterate_tasks(exported):
        key = str(row["data"].get("key"))
        rows[key] = int(row["id"])
        page = pages.get(key)
        for annotation in row["annotations"]:
            result, places = annotation["result"], len(page.candidates) if page else 0
            annotator = names.get(author_id(annotation))
            where = f"Annotation {annotation['id']} by {annotator or 'a guest'} on task {row['id']}"
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
    """How far the campaign is."""
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
    """Every rating of every candidate by the campaign's annotators on pages of these kinds, and what was not judged.

    Both are sorted by task, candidate and annotator. Where one person answered a page twice, the later answer counts;
    where a page shows a candidate twice, its first place counts.
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
            refused.append(CannotJudge.model_validate({**common, "reason": answer.reason}))
            continue
        for position, (candidate, rating) in enumerate(zip(page.candidates, answer.ratings, strict=True)):
            if page.candidates.index(candidate) == position:
                fields = {"candidate_id": candidate, "position": position, "seconds": answer.seconds}
                judgements.append(Judgement.model_validate({**common, **fields, **rating}))
    judgements.sort(
        key=lambda judgement: (judgement.task_id, judgement.candidate_id, judgement.annotator, judgement.annotation_id)
    )
    return judgements, sorted(refused, key=lambda refusal: (refusal.task_id, refusal.annotator, refusal.annotation_id))

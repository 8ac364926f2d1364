"""A campaign's answers: the export, how far it is, and the judgements in it."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import requests

from annotation.accounts import author_id, names_by_id
from annotation.campaign import Campaign
from annotation.labelling import ratings_of
from annotation.vocabulary import Judgement, Record
from infra.errors import EditLoopError
from infra.settings import ServiceSettings

EXPORT_SECONDS = 300


class Progress(Record):
    """How far a campaign is; `answered` tasks have ratings from `overlap` annotators."""

    tasks: int
    answered: int
    annotations: int
    wanted: int
    by_annotator: dict[str, int]
    skipped: int
    """Annotations that say the page cannot be judged."""
    unfinished: int
    """Annotations that lack a rating."""
    others: int
    """Annotations by accounts that are not the campaign's annotators; not used."""

    @property
    def complete(self) -> bool:
        return self.answered == self.tasks


def export(settings: ServiceSettings, campaign: Campaign) -> bytes:
    """Label Studio's JSON export of all tasks of the campaign, finished or not."""
    url = settings.require("label_studio_url")
    reply = requests.get(
        f"{url}/api/projects/{campaign.project_id}/export",
        params={"exportType": "JSON", "download_all_tasks": "true"},
        headers={"Authorization": f"Token {settings.require('label_studio_token')}"},
        timeout=EXPORT_SECONDS,
    )
    if reply.status_code != 200:
        raise EditLoopError(f"Label Studio did not export project {campaign.project_id} ({url}): {reply.status_code}.")
    return reply.content


def progress(client: Any, campaign: Campaign, exported: bytes) -> Progress:
    """How far the campaign is, counted from its export."""
    names = names_by_id(client, campaign.annotators)
    by_task: dict[str, set[str]] = {}
    by_annotator: Counter[str] = Counter()
    skipped = unfinished = others = 0
    for row in json.loads(exported):
        done = by_task.setdefault(row["data"]["key"], set())
        for annotation in row["annotations"]:
            annotator = names.get(author_id(annotation))
            if annotator is None:
                others += 1
            elif annotation["was_cancelled"]:
                skipped += 1
            elif not all(ratings_of(annotation["result"], len(row["data"]["candidates"]))):
                unfinished += 1
            elif annotator not in done:
                done.add(annotator)
                by_annotator[annotator] += 1
    return Progress(
        tasks=campaign.tasks,
        answered=sum(len(done) >= campaign.overlap for done in by_task.values()),
        annotations=sum(by_annotator.values()),
        wanted=campaign.tasks * campaign.overlap,
        by_annotator={name: by_annotator[name] for name in campaign.annotators},
        skipped=skipped,
        unfinished=unfinished,
        others=others,
    )


def judgements(client: Any, campaign: Campaign, exported: bytes) -> list[Judgement]:
    """Every rating of every candidate by the campaign's annotators, sorted by task, candidate and annotator.

    Skipped pages and missing ratings give no judgement. Where one person answered a task twice, the later one counts;
    where a page shows a candidate twice, its first place counts.
    """
    names = names_by_id(client, campaign.annotators)
    found: dict[tuple[str, str, str], Judgement] = {}
    for annotator, row, annotation in _answers(exported, names):
        candidates = row["data"]["candidates"]
        ratings = ratings_of(annotation["result"], len(candidates))
        for position, (candidate, rating) in enumerate(zip(candidates, ratings, strict=True)):
            if not rating or candidates.index(candidate) != position:
                continue
            found[row["data"]["task"], candidate, annotator] = Judgement.model_validate(
                {
                    "task_id": row["data"]["task"],
                    "candidate_id": candidate,
                    "annotator": annotator,
                    **rating,
                    "position": position,
                    "seconds": annotation.get("lead_time"),
                    "annotation_id": annotation["id"],
                    "created_at": annotation["created_at"],
                }
            )
    return [found[key] for key in sorted(found)]


def _answers(exported: bytes, names: dict[int, str]) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """(annotator, task's row, annotation) of what counts, oldest first."""
    for row in json.loads(exported):
        for annotation in sorted(row["annotations"], key=lambda one: one["id"]):
            annotator = names.get(author_id(annotation))
            if annotator is not None and not annotation["was_cancelled"]:
                yield annotator, row, annotation

"""Label Studio's export of a campaign's project: fetched whole, and parsed a task at a time."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypedDict

from tenacity import wait_fixed

from annotation.campaigns.campaign import Campaign
from annotation.campaigns.kept_answers import KeptAnswer, ResultItem
from annotation.campaigns.label_studio import LabelStudioApi, read_project
from editloop.errors import EditLoopError
from editloop.retry import retry_call
from infra.settings import ServiceSettings

EXPORT_TRIES, SECONDS_BETWEEN = 3, 2.0


class TruncatedExportError(Exception):
    """The export from Label Studio is truncated or lacks tasks."""


class Annotation(TypedDict):
    """An annotation as Label Studio exports it, as far as this module needs it."""

    id: int
    completed_by: int | None
    """User id of the author; None where the account was deleted."""
    updated_by: int | None
    """User id of whoever created or changed it last; None for an imported annotation and for a deleted account."""
    import_id: int | None
    """Id that an imported annotation had before."""
    result: list[ResultItem]
    was_cancelled: bool
    lead_time: float | None
    created_at: str
    updated_at: str


class ExportedTask(NamedTuple):
    """A task of an export, without the page's texts and pictures."""

    task_id: int
    """Label Studio's id."""
    key: str
    """Key of the page in the task's data; "None" where it has none."""
    annotations: list[Annotation]
    drafts: int
    """Answers that were begun and not submitted."""
    predictions: int
    """Answers that a program suggests. EditLoop puts none on a campaign's pages."""
    total_annotations: int
    """Label Studio's own count of the annotations that were not cancelled."""


class AnswerExport(NamedTuple):
    """Label Studio's export of a project, parsed once."""

    data: bytes
    """The JSON as Label Studio sends it."""
    tasks: tuple[ExportedTask, ...]


def export_answers(settings: ServiceSettings, campaign: Campaign) -> AnswerExport:
    """Export all tasks of a campaign from Label Studio, finished or not.

    A truncated export, or one with fewer tasks than the project, is requested again, up to EXPORT_TRIES times in all.

    Args:
        settings: Address and token of Label Studio.
        campaign: The campaign, or the lead's queue of one.

    Raises:
        EditLoopError: The project was deleted, every export was truncated, or Label Studio does not answer.
    """
    api = LabelStudioApi(settings)

    def once() -> AnswerExport:
        expected_tasks = read_project(api, campaign.project_id, campaign.name)["task_number"]
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
        ExportedTask(
            int(row["id"]),
            str(row["data"].get("key")),
            row["annotations"],
            len(row.get("drafts") or ()),
            len(row.get("predictions") or ()),
            int(row["total_annotations"]),
        )
        for row in _iterate_rows(data)
    )
    return AnswerExport(data, tuple(tasks))


def kept_export(answers: Iterable[KeptAnswer]) -> AnswerExport:
    """Return answers of a campaign's record as the export of the deleted project that they were in.

    Args:
        answers: The answers.
    """
    tasks = [
        ExportedTask(
            task_id=0,
            key=answer.page,
            annotations=[
                Annotation(
                    id=answer.annotation_id,
                    completed_by=None,
                    updated_by=None,
                    import_id=None,
                    result=answer.result,
                    was_cancelled=answer.skipped,
                    lead_time=answer.seconds,
                    created_at=answer.created_at,
                    updated_at=answer.created_at,
                )
            ],
            drafts=0,
            predictions=0,
            total_annotations=1,
        )
        for answer in answers
    ]
    return AnswerExport(b"[]", tuple(tasks))


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


def task_links(url: str, export: AnswerExport) -> dict[str, str]:
    """Return the address in Label Studio of each task, by page key.

    Args:
        url: Address of the project's page for annotators.
        export: Label Studio's export.
    """
    return {task.key: f"{url.partition('?')[0]}?task={task.task_id}" for task in export.tasks}

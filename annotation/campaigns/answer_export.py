"""Label Studio's export of a campaign's project: fetched whole, and parsed a task at a time."""

import json
import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple, TypedDict, cast

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError
from tenacity import wait_fixed

from annotation.campaigns.campaign import Campaign
from annotation.campaigns.kept_answers import KeptAnswer, ResultItem
from annotation.campaigns.label_studio import LabelStudioApi, read_project
from editloop.errors import EditLoopError
from editloop.retry import retry_call
from editloop.settings_file import setting_faults
from infra.settings import ServiceSettings

EXPORT_TRIES, SECONDS_BETWEEN = 3, 2.0
DEEPEST_PART = 8
"""Most levels of values inside each other in what one control says; the controls of a page make three."""
VALUES_READ = ("choices", "text")
"""Keys of a control's value that are read: lists of texts."""
AWARE_TIME: TypeAdapter[datetime] = TypeAdapter(AwareDatetime)


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
        EditLoopError: A task is none that Label Studio writes.
    """
    return AnswerExport(data, tuple(map(_exported_task, _iterate_rows(data))))


def _time(text: str) -> str:
    """Check a time that is kept as it is written."""
    AWARE_TIME.validate_python(text)
    datetime.fromisoformat(text)
    return text


Time = Annotated[str, AfterValidator(_time)]


class _StatedAnnotation(BaseModel):
    """An annotation as the export states it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: int
    completed_by: int | None
    updated_by: int | None
    import_id: int | None
    result: list[Any]
    was_cancelled: bool
    lead_time: float | None = None
    created_at: Time
    updated_at: Time | None = None


class _StatedTask(BaseModel):
    """A task as the export states it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    id: int
    data: dict[str, Any]
    annotations: list[_StatedAnnotation]
    drafts: list[Any] | None = None
    predictions: list[Any] | None = None
    total_annotations: int


def _exported_task(row: Any) -> ExportedTask:
    try:
        task = _StatedTask.model_validate(row)
    except ValidationError as error:
        faults = "; ".join(setting_faults(error, _StatedTask)[:3])
        number = row.get("id") if isinstance(row, dict) else row
        raise EditLoopError(
            f"Label Studio's export: task {str(number)[:20]} is none that EditLoop reads ({faults}). Look at that task "
            "in Label Studio, and whether its version is the one that EditLoop was installed with."
        ) from None
    return ExportedTask(
        task.id,
        str(task.data.get("key")).encode(errors="backslashreplace").decode(),
        [_annotation(stated) for stated in task.annotations],
        len(task.drafts or ()),
        len(task.predictions or ()),
        task.total_annotations,
    )


def _annotation(stated: _StatedAnnotation) -> Annotation:
    annotation = cast(Annotation, dict(stated))
    seconds = stated.lead_time
    annotation["lead_time"] = seconds if seconds is not None and math.isfinite(seconds) and seconds >= 0 else None
    annotation["updated_at"] = stated.updated_at or stated.created_at
    annotation["result"] = [_control_part(part) for part in stated.result]
    return annotation


def _control_part(part: Any) -> ResultItem:
    """Return what a control says. Label Studio takes any list as an answer, from whoever may log in.

    Of what no control of a page says, the name alone is kept: it counts for nothing, and `faults_of` names it.
    """
    stated: dict[str, Any] = part if isinstance(part, dict) else {}
    name, value = stated.get("from_name"), stated.get("value")
    shown_name = name.encode(errors="backslashreplace").decode() if isinstance(name, str) else ""
    unreadable: ResultItem = {"from_name": shown_name, "value": {}}
    try:
        # Not: texts that are no UTF-8, numbers that are none, more levels than the record can hold.
        json.dumps(stated, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError):
        return unreadable
    if not isinstance(name, str) or not isinstance(value, dict) or not _is_shallow(stated, DEEPEST_PART):
        return unreadable
    return stated if all(_is_texts(value[key]) for key in VALUES_READ if key in value) else unreadable


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_shallow(value: Any, levels: int) -> bool:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(part, levels - 1) for part in parts)


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


def _iterate_rows(exported: bytes) -> Iterator[Any]:
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
        except RecursionError:
            raise EditLoopError(
                f"Label Studio's export: too many levels of JSON inside each other at character {at}, in an answer "
                "that no page gives. Delete that annotation in Label Studio."
            ) from None
        yield row


def task_links(url: str, export: AnswerExport) -> dict[str, str]:
    """Return the address in Label Studio of each task, by page key.

    Args:
        url: Address of the project's page for annotators.
        export: Label Studio's export.
    """
    return {task.key: f"{url.partition('?')[0]}?task={task.task_id}" for task in export.tasks}

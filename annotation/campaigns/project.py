"""The Label Studio project of a campaign: made, mended after what people did to it, or made anew from the record.

Everything here is idempotent. A task is identified by the content key in its data.
"""

import re
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypedDict

from annotation.campaigns.answer_export import export_answers
from annotation.campaigns.answers import CampaignAnswers, read_answers, wanted_answers
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.guidelines import guidelines_html
from annotation.campaigns.kept_answers import latest_copy, read_kept_answers
from annotation.campaigns.label_studio import LabelStudioApi, NotThereError, list_projects, read_project
from annotation.campaigns.labelling import config_sha256, task_data
from annotation.campaigns.locating import CONFIG
from annotation.campaigns.pictures import picture_store
from annotation.campaigns.record import CampaignRecord, ProjectMade, append_event, now, opened_file, read_record
from annotation.campaigns.training import former_untrained, keep_trained, training_state
from editloop.data.vocabulary import Page
from editloop.errors import EditLoopError
from editloop.progress import track
from infra.settings import ServiceSettings

LONGEST_TITLE = 50
"""Characters of the longest title of a project that Label Studio takes."""
IMPORT_PAGES = 500
"""Pages in one import request. It takes a few seconds, so little is repeated if Label Studio goes away."""
SETTLE_SECONDS = 300
"""Longest time to wait until imported tasks appear."""
FIRST_PAUSE = 0.1
"""Seconds between the first two checks for them. The pause doubles each time, up to one second."""
OPENED = re.compile(r"Opened by EditLoop as campaign ([0-9a-f]{16})")
"""Finds the campaign's key in a project's description, where nobody changed it."""
OPENED_EARLIER = re.compile(r'^editloop: \{.*"key":"([0-9a-f]{16})"', re.MULTILINE)
"""Finds it in a description by release 0.2.0 or earlier."""
CLOSED_EARLIER = re.compile(r"^editloop-closings: ", re.MULTILINE)
"""Finds there that the campaign was closed."""
ROWS = 1000
"""Tasks in one request when they are listed."""
SETTINGS: dict[str, object] = {
    "show_instruction": True,
    "show_skip_button": False,
    "enable_empty_annotation": False,
    # Otherwise a page would start with a suggested answer filled in.
    "show_collab_predictions": False,
    "sampling": "Sequential sampling",
    "skip_queue": "REQUEUE_FOR_ME",
}
"""Settings of every project of EditLoop's."""


class TaskRow(NamedTuple):
    """A task in Label Studio."""

    id: int
    overlap: int


class PlannedTask(TypedDict):
    """A task to be imported."""

    data: dict[str, Any]
    annotations: list[dict[str, Any]]


class MendedProject(NamedTuple):
    """A campaign whose project is as it should be."""

    record: CampaignRecord
    repairs: list[str]
    """What was mended, a sentence each."""
    tasks: dict[str, TaskRow]
    """Tasks by page key."""


def make_project(api: LabelStudioApi, title: str, description: str, config: str, guidelines: str = "") -> int:
    """Make a project in Label Studio and return its id.

    Args:
        api: The API.
        title: Its title, as `project_title` returns it.
        description: Its description, for people. Nothing is ever read from it.
        config: Its labelling config.
        guidelines: Its guidelines as HTML.
    """
    texts = {"title": title, "description": description, "expert_instruction": guidelines}
    body = {**texts, "label_config": config, **SETTINGS}
    return int(api.call("POST", "/api/projects/", json=body)["id"])


def project_title(name: str, ending: str = "") -> str:
    """Return the title of a campaign's project. A name that is too long ends in an ellipsis.

    Args:
        name: The campaign's name.
        ending: What follows the name.
    """
    room = LONGEST_TITLE - len(ending)
    return (name if len(name) <= room else f"{name[: room - 1].rstrip()}…") + ending


def describe(campaign: Campaign) -> str:
    """Return the description of a campaign's project.

    Args:
        campaign: The campaign.
    """
    return (
        f"{campaign.pages} pages, {campaign.overlap} annotators each. Opened by EditLoop as campaign {campaign.key}; "
        "this text may be changed freely."
    )


def campaign_projects(settings: ServiceSettings) -> dict[str, str]:
    """Return the titles of the projects whose descriptions still say which campaign they were made for, by its key.

    Of the campaigns of release 0.2.0 and earlier, those that were closed are left out.

    Args:
        settings: Address and token of Label Studio.
    """
    titles = {}
    for project in list_projects(LabelStudioApi(settings), "id", "title", "description"):
        description = project["description"] or ""
        earlier = None if CLOSED_EARLIER.search(description) else OPENED_EARLIER.search(description)
        if match := OPENED.search(description) or earlier:
            titles[match[1]] = str(project["title"])
    return titles


def mend_project(
    client: Any,
    settings: ServiceSettings,
    record: CampaignRecord,
    pages: Mapping[str, Page],
    guidelines: str,
    answers: CampaignAnswers | None = None,
    *,
    put_back_page: bool = False,
) -> MendedProject:
    """Bring a campaign's project in line with its record, whatever people did to it in Label Studio.

    A deleted project is made anew. Settings and guidelines are put back. Missing tasks are
    imported, with the answers that the record keeps of them; a second task of a page is deleted, or, where it has
    answers, no longer given to anybody. Suggested answers are deleted. Each task is given to so many more people as
    answers on it do not count, such as a guest's, so that the annotators get all their pages.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Addresses and credentials of the services.
        record: The campaign's record.
        pages: The campaign's pages by key, in the order of the queue.
        guidelines: The guidelines as Markdown.
        answers: The answers that Label Studio has now; None to read them.
        put_back_page: Whether to put back a labelling config that was changed. Answers on the changed page may mean
            something else, so a person decides it.

    Returns:
        The record, which names another project where it was made anew, with what was mended.

    Raises:
        EditLoopError: Label Studio does not accept a setting or a task, or does not answer.
    """
    api, repairs = LabelStudioApi(settings), list[str]()
    record = keep_trained(record, training_state(settings, record))
    try:
        read_project(api, record.campaign.project_id, record.campaign.name)
    except NotThereError:
        old = record.campaign.project_id
        record, answers = _made_anew(api, settings, record), None
        repairs.append(f"its project {old} was deleted: project {record.campaign.project_id} is in its place")
    campaign = record.campaign
    repairs += _put_back_config(api, record) if put_back_page else []
    _set_project(api, campaign, {"expert_instruction": guidelines_html(guidelines), **SETTINGS})
    store = picture_store(settings)
    store.attach(client, campaign.project_id, campaign.key)
    if answers is None:
        answers = read_answers(export_answers(settings, campaign), pages, record)
    answered = Counter(answer.task_id for answer in answers.given)
    rows = task_rows(settings, campaign)
    kept = kept_by_page(record, pages.keys() - rows.keys(), queue=False)
    shown = store.shown(campaign.key)
    planned = [
        PlannedTask(
            data=task_data(page, shown, campaign.references),
            annotations=kept.get(page.key, []),
        )
        for page in pages.values()
    ]
    tasks = import_tasks(api, campaign, planned, rows, answered)
    if kept:
        restored = sum(map(len, kept.values()))
        repairs.append(f"{restored} answers on {len(kept)} deleted pages were put back from the record")
        answers = read_answers(export_answers(settings, campaign), pages, record)
    if answers.predictions:
        query = {"id": "delete_tasks_predictions", "project": campaign.project_id}
        everything = {"selectedItems": {"all": True, "excluded": []}}
        api.call("POST", "/api/dm/actions", params=query, json=everything)
        repairs.append(f"{answers.predictions} suggested answers were deleted")
    # Present annotators may still pass the training; what former ones answered without is asked for again.
    answers = replace(answers, untrained=former_untrained(record))
    doubles = {row for key in tasks for row in rows.get(key, []) if row != tasks[key] and answered[row.id]}
    _set_overlaps(api, wanted_answers(record, pages, answers), answers, tasks, doubles)
    return MendedProject(record, repairs, tasks)


def task_rows(settings: ServiceSettings, campaign: Campaign) -> dict[str, list[TaskRow]]:
    """Return the campaign's tasks in Label Studio.

    Args:
        settings: Address and token of Label Studio.
        campaign: The campaign.

    Returns:
        Tasks by page key, lowest id first; all after the first are duplicates.
    """
    return _rows_by_key(LabelStudioApi(settings), campaign)


def live_tasks(
    api: LabelStudioApi, campaign: Campaign, fields: Literal["task_only", "all"]
) -> Iterator[dict[str, Any]]:
    """Yield the project's tasks as Label Studio has them now, in requests of ROWS tasks.

    Args:
        api: The API.
        campaign: The campaign, or the lead's queue of one.
        fields: "task_only", or "all" to include the annotations.

    Yields:
        The tasks as Label Studio's JSON.
    """
    number = total = 0
    while number * ROWS < total or number == 0:
        query = {"project": campaign.project_id, "page": number + 1, "page_size": ROWS, "fields": fields}
        reply = api.call("GET", "/api/tasks", params=query)
        yield from reply["tasks"]
        number, total = number + 1, reply["total"]


def import_tasks(
    api: LabelStudioApi,
    campaign: Campaign,
    planned: Sequence[PlannedTask],
    present: Mapping[str, list[TaskRow]],
    answered: Mapping[int, int],
) -> dict[str, TaskRow]:
    """Import the planned tasks that are missing, in order, IMPORT_PAGES at a time.

    Of tasks with the same key, those without answers are deleted, but for one. Those with answers stay.

    Args:
        api: The API.
        campaign: The campaign, or the lead's queue of one.
        planned: The planned tasks.
        present: The present ones by key.
        answered: Number of answers on each present task, by its id.

    Returns:
        Tasks by page key: of several, the one with the most answers.

    Raises:
        EditLoopError: Imported tasks do not appear within SETTLE_SECONDS.
    """
    keys = {str(task["data"]["key"]) for task in planned}
    missing = [task for task in planned if task["data"]["key"] not in present]
    parts = [missing[start : start + IMPORT_PAGES] for start in range(0, len(missing), IMPORT_PAGES)]
    for part in track(parts, "import"):
        api.call("POST", f"/api/projects/{campaign.project_id}/import", json=part)
    deadline, pause = time.monotonic() + SETTLE_SECONDS, FIRST_PAUSE
    while missing and not keys <= (present := _rows_by_key(api, campaign)).keys():
        if time.monotonic() > deadline:
            raise EditLoopError(
                f"{campaign.url}: {len(present)} of {len(keys)} tasks are there {SETTLE_SECONDS} s after their import."
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    tasks = {
        key: max(rows, key=lambda row: (answered.get(row.id, 0), -row.id))
        for key, rows in present.items()
        if key in keys
    }
    doubled = [row.id for key in tasks for row in present[key] if row != tasks[key] and not answered.get(row.id)]
    list(api.each(lambda task: api.call("DELETE", f"/api/tasks/{task}"), doubled))
    return tasks


def kept_by_page(record: CampaignRecord, missing: Collection[str], *, queue: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the answers on missing pages that the record keeps, as Label Studio imports them.

    The id that an answer had before makes it known as the record's own.

    Args:
        record: The campaign's record.
        missing: Keys of the pages.
        queue: Whether they are pages of the lead's queue.

    Returns:
        Answers by page key.
    """
    by_page: dict[str, list[dict[str, Any]]] = {}
    ids = {name: user_id for user_id, name in record.accounts.items()}
    for answer in read_kept_answers(record.campaign.key).values() if missing else ():
        if answer.page in missing and answer.queue == queue:
            fields: dict[str, Any] = {
                "id": answer.annotation_id,
                "completed_by": ids.get(answer.annotator),
                "result": answer.result,
                "was_cancelled": answer.skipped,
                "lead_time": answer.seconds,
                "ground_truth": False,
            }
            by_page.setdefault(answer.page, []).append(fields)
    return by_page


def _made_anew(api: LabelStudioApi, settings: ServiceSettings, record: CampaignRecord) -> CampaignRecord:
    """Make a project in place of a deleted one, and return the record with it."""
    campaign = record.campaign
    project_id = make_project(api, project_title(campaign.name), describe(campaign), opened_config(record))
    event = ProjectMade(key=campaign.key, at=now(), by="EditLoop", project_id=project_id, queue=False)
    append_event(event, campaign.name)
    return read_record(settings, campaign.key)


def opened_config(record: CampaignRecord) -> str:
    """Return the labelling config that a campaign opened with.

    Args:
        record: The campaign's record.
    """
    return opened_file(record, CONFIG).decode()


def _put_back_config(api: LabelStudioApi, record: CampaignRecord) -> list[str]:
    """Put the labelling config back where it was changed, and say so."""
    campaign = record.campaign
    if config_sha256(read_project(api, campaign.project_id, campaign.name)["label_config"]) == campaign.config_sha256:
        return []
    api.call("PATCH", f"/api/projects/{campaign.project_id}/", json={"label_config": opened_config(record)})
    copy = latest_copy(campaign.key)
    since = f" after {copy.at:%Y-%m-%d %H:%M} UTC" if copy else ""
    return [f"its labelling config was changed and is put back: look at the answers given{since} on the changed page"]


def _set_project(api: LabelStudioApi, campaign: Campaign, planned: dict[str, object]) -> None:
    """Set a project's settings and overlap by an update; the overlap is read back.

    An overlap that is given at the project's creation may be dropped silently.
    A change of the project's overlap resets that of every task, so it is only sent if it differs.
    """
    path = f"/api/projects/{campaign.project_id}"
    project = api.call("GET", path)
    planned = {**planned, "maximum_annotations": campaign.overlap}
    change = {name: value for name, value in planned.items() if project[name] != value}
    if not change:
        return
    api.call("PATCH", path, json=change)
    overlap = api.call("GET", path)["maximum_annotations"]
    if overlap != campaign.overlap:
        raise EditLoopError(
            f"Label Studio keeps an overlap of {overlap} for {campaign.url}, not {campaign.overlap}: set it there."
        )


def _rows_by_key(api: LabelStudioApi, campaign: Campaign) -> dict[str, list[TaskRow]]:
    rows_by_key: dict[str, list[TaskRow]] = {}
    for task in live_tasks(api, campaign, "task_only"):
        key = task["data"].get("key") or f"task {task['id']} without a key"
        rows_by_key.setdefault(key, []).append(TaskRow(task["id"], task["overlap"]))
    return {key: sorted(rows) for key, rows in rows_by_key.items()}


def _set_overlaps(
    api: LabelStudioApi,
    wanted: Mapping[str, int],
    answers: CampaignAnswers,
    tasks: Mapping[str, TaskRow],
    doubles: Collection[TaskRow],
) -> None:
    """Set the overlap of each task so that Label Studio gives it out until the wanted answers are there.

    That is the number of answers wanted, one more for each answer on the task that does not count, and one less for
    each that counts on a second task of the page. Such a second task is given out no more.

    Label Studio leaves `is_labeled` as it was, and would never give out a complete page whose overlap grew.
    """
    counting = answers.counting()
    ids = {answer.annotation_id for answer in counting.values()}
    per_page = Counter(page for page, _ in counting)
    live = Counter(answer.task_id for answer in answers.given if not answer.skipped)
    here = Counter(answer.task_id for answer in answers.given if answer.annotation_id in ids)
    planned = {row.id: max(1, live[row.id]) for row in doubles}
    for key, row in tasks.items():
        elsewhere = per_page[key] - here[row.id]
        planned[row.id] = max(1, wanted[key] - elsewhere + live[row.id] - here[row.id])
    done = {row.id for row in doubles} | {row.id for key, row in tasks.items() if per_page[key] >= wanted[key]}

    def set_overlap(row: TaskRow) -> None:
        path = f"/api/tasks/{row.id}"
        change = {"overlap": planned[row.id], "is_labeled": row.id in done}
        overlap = api.call("PATCH", path, json=change)["overlap"]
        if overlap != planned[row.id]:
            raise EditLoopError(f"Label Studio keeps an overlap of {overlap} for task {path}, not {planned[row.id]}.")

    wrong = [row for row in (*tasks.values(), *doubles) if row.overlap != planned[row.id]]
    for _ in track(api.each(set_overlap, wrong), "overlaps", total=len(wrong)):
        pass

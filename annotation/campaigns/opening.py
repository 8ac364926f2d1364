"""Open a campaign: a Label Studio project whose tasks are exactly the planned pages.

Everything here is idempotent: a project is identified by the campaign's key, a task by the content key in its data.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from PIL import Image
from rich.progress import track

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.campaign import FACTS, Campaign, campaign_of, find_campaigns, live_config_sha256
from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.guidelines import default_guidelines, guidelines_html
from annotation.campaigns.label_studio import LabelStudioApi
from annotation.campaigns.labelling import (
    AXIS_WORDS,
    FEWEST,
    TINY,
    check_config,
    config_sha256,
    labelling_config,
    task_data,
)
from annotation.campaigns.pictures import LARGE_PICTURES, large_pictures, picture_store, shown_pictures
from annotation.campaigns.plan import places_of, plan_pages
from editloop.content import canonical_json, read_manifest, sha256_json, write_file, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.vocabulary import EditTask, Page
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings

IMPORT_PAGES = 500
"""Pages in one import request. It takes a few seconds, so little is repeated if Label Studio goes away."""
SETTLE_SECONDS = 300
"""Longest time to wait until imported tasks appear."""
FIRST_PAUSE = 0.1
"""Seconds between the first two checks for them. The pause doubles each time, up to one second."""
ROWS = 1000
"""Tasks in one request when they are listed."""


class TaskRow(NamedTuple):
    """A task in Label Studio."""

    id: int
    overlap: int


def open_campaign(
    client: Any, settings: ServiceSettings, candidates: Path, campaign_settings: CampaignSettings, folder: Path
) -> Campaign:
    """Open a campaign, or bring an open one up to date.

    The same candidates and settings are the same campaign, except that guidelines may change. Tasks with fewer than
    two candidates are left out. Opening again imports missing tasks, deletes duplicate tasks, and resets overlaps and
    guidelines.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Addresses and credentials of the services.
        candidates: Candidates folder.
        campaign_settings: Settings of the campaign.
        folder: Empty folder, which gets the campaign's files.

    Returns:
        The open campaign.

    Raises:
        EditLoopError: The settings do not fit the candidates, an annotator has no account, the labelling config was
            changed in Label Studio, or Label Studio does not accept the project or its tasks.
    """
    tasks = [task for task in read_tasks(candidates) if len(task.candidates) >= FEWEST]
    images = candidates / "images"
    places, tiny = places_of(tasks, campaign_settings), _tiny(images, tasks)
    config = labelling_config(places, tiny=tiny, axes=AXIS_WORDS | campaign_settings.axes)
    if faults := check_config(config, places):
        raise EditLoopError(f"The page of campaign {campaign_settings.name} would lose answers: {' '.join(faults)}")
    pages = plan_pages(
        tasks, campaign_settings, config_sha256=config_sha256(config), images=images, gold_images=folder / "images"
    )
    facts = {
        **campaign_settings.model_dump(include={"name", "overlap", "annotators", "lead", "seed"}),
        "config_sha256": config_sha256(config),
        "candidates_sha256": read_manifest(candidates)["sha256"],
        "pages_sha256": sha256_json([page.model_dump(mode="json") for page in pages]),
        "pages": len(pages),
        "wanted": sum(page.overlap for page in pages),
        "tasks": sum(page.kind == "task" for page in pages),
        "places": places,
        "tiny": tiny,
        "gates": campaign_settings.gates.alpha,
    }
    facts["key"] = key = sha256_json(facts)[:16]
    ensure_annotators(client, set(filter(None, (*campaign_settings.annotators, campaign_settings.lead))), settings)
    guidelines = campaign_settings.guidelines or default_guidelines()
    campaign = next((existing for existing in find_campaigns(client, settings) if existing.key == key), None)
    campaign = campaign or _create(client, settings, facts, config)
    if live_config_sha256(client, campaign) != campaign.config_sha256:
        raise EditLoopError(
            f"The labelling config of {campaign.url} was changed in Label Studio, so its answers would mean something "
            "else. Restore it, or open a campaign of another name."
        )
    api = LabelStudioApi(settings)
    _set_project(api, campaign, guidelines_html(guidelines))
    store = picture_store(settings)
    pictures = _pictures(pages, images, folder / "images")
    large = large_pictures(pictures)
    store.put(key, pictures, large)
    store.attach(client, campaign.project_id, key)
    shown = shown_pictures(store, key, large)
    rows = import_tasks(api, campaign, [task_data(page, shown) for page in pages])
    _set_overlaps(api, pages, rows)
    write_json(folder / "campaign.json", campaign.model_dump(mode="json"))
    write_file(folder / "pages.jsonl", "".join(page.model_dump_json() + "\n" for page in pages))
    write_json(folder / LARGE_PICTURES, large)
    write_json(folder / "settings.json", campaign_settings.model_dump(mode="json"))
    write_file(folder / "guidelines.md", guidelines)
    return campaign


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


def _create(client: Any, settings: ServiceSettings, facts: dict[str, Any], config: str) -> Campaign:
    words = f"{facts['pages']} pages, {facts['overlap']} annotators each."
    project = client.projects.create(
        title=facts["name"][:50],
        description=f"{words}\n{FACTS}{canonical_json(facts).decode()}",
        label_config=config,
        show_instruction=True,
        show_skip_button=False,
        enable_empty_annotation=False,
    )
    return campaign_of(project.id, facts, settings)


def _set_project(api: LabelStudioApi, campaign: Campaign, guidelines: str) -> None:
    """Set guidelines and overlap by an update; the overlap is read back.

    An overlap that is given at the project's creation may be dropped silently.
    A change of the project's overlap resets that of every task, so it is only sent if it differs.
    """
    path = f"/api/projects/{campaign.project_id}"
    project = api.call("GET", path)
    planned = {"expert_instruction": guidelines, "maximum_annotations": campaign.overlap}
    change = {name: value for name, value in planned.items() if project[name] != value}
    if not change:
        return
    api.call("PATCH", path, json=change)
    overlap = api.call("GET", path)["maximum_annotations"]
    if overlap != campaign.overlap:
        raise EditLoopError(
            f"Label Studio keeps an overlap of {overlap} for {campaign.url}, not {campaign.overlap}: set it there."
        )


def import_tasks(api: LabelStudioApi, campaign: Campaign, planned: Sequence[dict[str, Any]]) -> dict[str, TaskRow]:
    """Make the project's tasks exactly the planned ones.

    Missing tasks are imported in order, IMPORT_PAGES at a time. Of tasks with the same key all but the one with the
    lowest id are deleted.

    Args:
        api: The API.
        campaign: The campaign, or the lead's queue of one.
        planned: Data of the planned tasks, as `task_data` returns them.

    Returns:
        Tasks by page key.

    Raises:
        EditLoopError: Imported tasks do not appear within SETTLE_SECONDS, or the project has tasks that are not
            planned.
    """
    keys = {data["key"] for data in planned}
    present = _rows_by_key(api, campaign)
    missing = [{"data": data} for data in planned if data["key"] not in present]
    parts = [missing[start : start + IMPORT_PAGES] for start in range(0, len(missing), IMPORT_PAGES)]
    for part in track(parts, "import", transient=True):
        api.call("POST", f"/api/projects/{campaign.project_id}/import", json=part)
    deadline, pause = time.monotonic() + SETTLE_SECONDS, FIRST_PAUSE
    while missing and (present := _rows_by_key(api, campaign)).keys() < keys:
        if time.monotonic() > deadline:
            raise EditLoopError(
                f"{campaign.url}: {len(present)} of {len(keys)} tasks are there {SETTLE_SECONDS} s after their import."
            )
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    if strange := present.keys() - keys:
        raise EditLoopError(
            f"{campaign.url}: {len(strange)} tasks there are none of the campaign's: delete them in Label Studio (keys "
            f"{', '.join(sorted(strange)[:3])})."
        )
    doubled = [row.id for rows in present.values() for row in rows[1:]]
    list(api.each(lambda task: api.call("DELETE", f"/api/tasks/{task}"), doubled))
    return {key: rows[0] for key, rows in present.items()}


def _rows_by_key(api: LabelStudioApi, campaign: Campaign) -> dict[str, list[TaskRow]]:
    rows_by_key: dict[str, list[TaskRow]] = {}
    for task in live_tasks(api, campaign, "task_only"):
        key = task["data"].get("key") or f"task {task['id']} without a key"
        rows_by_key.setdefault(key, []).append(TaskRow(task["id"], task["overlap"]))
    return {key: sorted(rows) for key, rows in rows_by_key.items()}


def _set_overlaps(api: LabelStudioApi, pages: Sequence[Page], rows: dict[str, TaskRow]) -> None:
    """Set the overlap of each task whose overlap differs from its page's."""

    def set_overlap(page: Page) -> None:
        path = f"/api/tasks/{rows[page.key].id}"
        overlap = api.call("PATCH", path, json={"overlap": page.overlap})["overlap"]
        if overlap != page.overlap:
            raise EditLoopError(f"Label Studio keeps an overlap of {overlap} for task {path}, not {page.overlap}.")

    wrong = [page for page in pages if rows[page.key].overlap != page.overlap]
    for _ in track(api.each(set_overlap, wrong), "overlaps", total=len(wrong), transient=True):
        pass


def _pictures(pages: Sequence[Page], images: Path, gold_images: Path) -> dict[str, Path]:
    """Return the file of every image that the pages show, by sha256."""
    gold_digests = {path.stem for path in gold_images.glob("*.png")} if gold_images.is_dir() else set()
    digests = {picture for page in pages for picture in (page.source, *page.images)}
    return {picture: (gold_images if picture in gold_digests else images) / f"{picture}.png" for picture in digests}


def _tiny(images: Path, tasks: Sequence[EditTask]) -> bool:
    """Whether no source or candidate has a side longer than TINY.

    One larger image is enough for False: without smoothing, thin lines vanish when it is shrunk.
    """
    for task in track(tasks, "sizes", transient=True):
        for digest in (task.source, *(candidate.image for candidate in task.candidates)):
            with Image.open(images / f"{digest}.png") as picture:
                if max(picture.size) > TINY:
                    return False
    return True

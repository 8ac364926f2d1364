"""A campaign: one Label Studio project that asks annotators about a set of tasks, opened once.

Everything here may be called again at any time: a project is found by its key, tasks by the content key in their data.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from annotation.accounts import ensure_annotators
from annotation.labelling import FEWEST, MOST, TINY, config_sha256, guidelines, labelling_config, task_data
from annotation.vocabulary import EditTask, Record
from infra.content import canonical_json, read_manifest, sha256_json
from infra.errors import EditLoopError
from infra.settings import ServiceSettings

FACTS = "editloop: "
"""Starts the line of a project's description that holds the campaign's facts as JSON."""
IMPORT_BYTES = 16 * 2**20
IMPORT_SECONDS = 300
REQUEST_SECONDS = 120


class Campaign(Record):
    """An open campaign, as `campaign.json` keeps it."""

    key: str
    """Content address of what is asked of whom: the idempotency key of everything that follows."""
    name: str
    project_id: int
    url: str
    """The project's page for annotators."""
    config_sha256: str
    candidates_sha256: str
    overlap: int = Field(ge=1)
    """Annotators who rate each task."""
    tasks: int
    annotators: tuple[str, ...]
    seed: int


def connect(settings: ServiceSettings) -> Any:
    """A label_studio_sdk client of the account that owns the campaigns. EditLoopError where it does not answer."""
    from label_studio_sdk.client import LabelStudio

    url = settings.require("label_studio_url")
    client = LabelStudio(base_url=url, api_key=settings.require("label_studio_token"), timeout=REQUEST_SECONDS)
    try:
        client.users.whoami()
    except Exception as error:  # the SDK lets httpx's and its own errors through
        raise EditLoopError(
            f"Label Studio at {url} does not answer to EDITLOOP_LABEL_STUDIO_TOKEN: {type(error).__name__}. "
            "`editloop status` tells whether it runs."
        ) from error
    return client


def read_tasks(candidates: Path) -> list[EditTask]:
    """The tasks of a candidates folder, as its `tasks.jsonl` has them."""
    lines = (candidates / "tasks.jsonl").read_text().splitlines()
    return [EditTask.model_validate_json(line) for line in lines if line.strip()]


def open_campaign(
    client: Any,
    settings: ServiceSettings,
    candidates: Path,
    *,
    name: str,
    overlap: int,
    annotators: Sequence[str],
    seed: int,
) -> Campaign:
    """Open the campaign, or find it open: the same candidates, annotators, overlap, name and seed are one campaign.

    Tasks with fewer than two candidates compare nothing and are left out. Raises EditLoopError where nothing is left,
    a task has more candidates than a page shows, or the overlap is larger than the number of annotators.
    """
    people = tuple(sorted(set(annotators)))
    if not 1 <= overlap <= len(people):
        raise EditLoopError(
            f"Overlap {overlap} of {len(people)} annotators: each task needs that many people, 1 or more."
        )
    candidates_sha256 = read_manifest(candidates)["sha256"]
    tasks = [task for task in read_tasks(candidates) if len(task.candidates) >= FEWEST]
    if not tasks:
        raise EditLoopError(f"{candidates}: no task has {FEWEST} different candidates, so there is nothing to compare.")
    crowded = [f"{task.name} ({len(task.candidates)})" for task in tasks if len(task.candidates) > MOST]
    if crowded:
        raise EditLoopError(f"A page shows {MOST} candidates; these tasks have more: {', '.join(crowded)}.")
    places = max(len(task.candidates) for task in tasks)
    config = labelling_config(places, tiny=_tiny(candidates / "images", tasks))
    facts = {
        "name": name,
        "config_sha256": config_sha256(config),
        "candidates_sha256": candidates_sha256,
        "overlap": overlap,
        "tasks": len(tasks),
        "annotators": people,
        "seed": seed,
    }
    key = sha256_json(facts)[:16]
    ensure_annotators(client, people, settings)
    campaign = next((one for one in find_campaigns(client, settings) if one.key == key), None)
    if campaign is None:
        project = client.projects.create(
            title=name[:50],
            description=_description(f"{len(tasks)} tasks, {overlap} annotators each.", {"key": key, **facts}),
            label_config=config,
            expert_instruction=guidelines(),
            show_instruction=True,
            show_skip_button=True,
            enable_empty_annotation=False,
        )
        campaign = _campaign(project.id, {"key": key, **facts}, settings)
    _set_overlap(client, campaign.project_id, overlap)
    _check_config(client, campaign)
    _import(client, settings, campaign, tasks, candidates / "images", places, config)
    return campaign


def find_campaigns(client: Any, settings: ServiceSettings) -> list[Campaign]:
    """Every campaign in Label Studio, oldest first; projects that EditLoop did not open are passed over."""
    found = []
    for project in client.projects.list():
        lines = [line for line in (project.description or "").splitlines() if line.startswith(FACTS)]
        if lines:
            found.append(_campaign(project.id, json.loads(lines[0].removeprefix(FACTS)), settings))
    return sorted(found, key=lambda one: one.project_id)


def read_campaign(folder: Path) -> Campaign:
    """The campaign that `annotate` opened, from its output folder."""
    read_manifest(folder)
    return Campaign.model_validate_json((folder / "campaign.json").read_text())


def task_rows(client: Any, campaign: Campaign) -> dict[str, list[tuple[int, dict[str, Any]]]]:
    """The tasks in Label Studio by content key: their (id, data), lowest id first; more than one is a duplicate."""
    found: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for task in client.tasks.list(project=campaign.project_id, page_size=500, fields="task_only"):
        found.setdefault(task.data["key"], []).append((task.id, task.data))
    return {key: sorted(rows, key=lambda row: row[0]) for key, rows in found.items()}


def live_config_sha256(client: Any, campaign: Campaign) -> str:
    """Content address of the labelling config as the project has it now."""
    return config_sha256(client.projects.get(campaign.project_id).label_config)


def _campaign(project_id: int, facts: dict[str, Any], settings: ServiceSettings) -> Campaign:
    url = f"{settings.require('label_studio_url')}/projects/{project_id}/data?labeling=1"
    return Campaign(project_id=project_id, url=url, **facts)


def _description(words: str, facts: dict[str, Any]) -> str:
    return f"{words}\n{FACTS}{canonical_json(facts).decode()}"


def _tiny(images: Path, tasks: Sequence[EditTask]) -> bool:
    sizes = []
    for task in tasks:
        with Image.open(images / f"{task.source}.png") as picture:
            sizes.append(max(picture.size))
    return max(sizes) <= TINY


def _set_overlap(client: Any, project: int, overlap: int) -> None:
    client.projects.update(project, maximum_annotations=overlap)
    kept = client.projects.get(project).maximum_annotations
    if kept != overlap:
        raise EditLoopError(
            f"Label Studio keeps an overlap of {kept} for project {project}, not {overlap}: set it there."
        )


def _check_config(client: Any, campaign: Campaign) -> None:
    if live_config_sha256(client, campaign) != campaign.config_sha256:
        raise EditLoopError(
            f"The labelling config of {campaign.url} was changed in Label Studio, so its answers would mean something "
            "else. Restore it, or open a campaign of another name."
        )


def _import(
    client: Any,
    settings: ServiceSettings,
    campaign: Campaign,
    tasks: Sequence[EditTask],
    images: Path,
    places: int,
    config: str,
) -> None:
    """Bring the project's tasks to exactly the wanted ones: what is missing is imported, in parts of IMPORT_BYTES."""
    wanted = {(data := task_data(task, images, places, campaign.seed, config))["key"]: data for task in tasks}
    there = task_rows(client, campaign)
    missing = [data for key, data in wanted.items() if key not in there]
    for part in _parts(missing):
        client.projects.import_tasks(campaign.project_id, request=[{"data": data} for data in part])
    deadline = time.monotonic() + IMPORT_SECONDS
    while (there := task_rows(client, campaign)).keys() != wanted.keys():
        if time.monotonic() > deadline:
            raise EditLoopError(
                f"{campaign.url}: {len(there)} of {len(wanted)} tasks are there {IMPORT_SECONDS} s after their import."
            )
        time.sleep(1)
    for rows in there.values():
        for task, _ in rows[1:]:  # an import that a killed call left running
            client.tasks.delete(str(task))


def _parts(data: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    part: list[dict[str, Any]] = []
    size = 0
    for one in data:
        length = len(json.dumps(one))
        if part and size + length > IMPORT_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield part

"""Open a campaign: plan its pages, write its record, and make its project in Label Studio."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from annotation.campaigns.accounts import ensure_annotators
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.campaign_settings import CampaignSettings
from annotation.campaigns.guidelines import default_guidelines
from annotation.campaigns.label_studio import LabelStudioApi, list_projects
from annotation.campaigns.labelling import AXIS_WORDS, FEWEST, TINY, check_config, config_sha256, labelling_config
from annotation.campaigns.locating import CONFIG, FILES, campaign_files
from annotation.campaigns.people import name_people
from annotation.campaigns.pictures import picture_store
from annotation.campaigns.plan import places_of, plan_pages, references_of
from annotation.campaigns.project import describe, make_project, mend_project, project_title
from annotation.campaigns.record import (
    CampaignRecord,
    Opened,
    append_event,
    now,
    read_record,
    read_records,
    settings_texts,
)
from annotation.campaigns.training import TRAINING_PAGES
from annotation.campaigns.training_project import mend_training
from editloop.content import read_manifest, sha256_file, sha256_json, write_file, write_json
from editloop.data.candidates_folder import read_tasks
from editloop.data.picture_file import file_picture_sha256
from editloop.data.vocabulary import EditTask, Page
from editloop.errors import EditLoopError
from editloop.progress import track
from infra.settings import ServiceSettings

NO_FIELDS = {"opened_before", "training_sha256"}
"""Facts that a campaign's key depends on, beside those that are fields of the campaign."""
CHANGEABLE = {"name", "annotators", "lead", "guidelines"}
"""Settings that are not compared when an open campaign is opened again: the others stay as they are."""


def open_campaign(
    client: Any,
    settings: ServiceSettings,
    candidates: Path,
    campaign_settings: CampaignSettings,
    folder: Path,
    *,
    by: str = "EditLoop",
) -> Campaign:
    """Open a campaign, or bring an open one of this name up to date.

    An open campaign keeps its settings; only annotators, lead and guidelines may change, and answers stay when they do.
    Tasks with fewer than two candidates are left out. Opening again mends the project in Label Studio too
    (`annotation.campaigns.project.mend_project`).

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Addresses and credentials of the services.
        candidates: Candidates folder.
        campaign_settings: Settings of the campaign.
        folder: Empty folder, which gets the campaign's files.
        by: Who opens it, for the record.

    Returns:
        The open campaign.

    Raises:
        EditLoopError: The settings do not fit the candidates, a campaign of this name has other settings, an annotator
            has no account, or Label Studio does not accept the project or its tasks.
    """
    tasks = [task for task in read_tasks(candidates) if len(task.candidates) >= FEWEST]
    images, candidates_sha256 = candidates / "images", str(read_manifest(candidates)["sha256"])
    _check_picture_names(candidates, tasks)
    texts = settings_texts(
        {**campaign_settings.model_dump(mode="json", exclude=CHANGEABLE), "candidates": candidates_sha256}
    )
    records = read_records(settings)
    record = next((record for record in records if _has_name(record, campaign_settings.name)), None)
    if record:
        _check_settings(record, texts)
    places, tiny = places_of(tasks, campaign_settings), _tiny(images, tasks)
    references = references_of(tasks)
    config = labelling_config(places, tiny=tiny, references=references, axes=AXIS_WORDS | campaign_settings.axes)
    if faults := check_config(config, places):
        raise EditLoopError(f"The page of campaign {campaign_settings.name} would lose answers: {' '.join(faults)}")
    # An open campaign keeps its pages, whoever its people are now and whatever page this version would make.
    asked = {"annotators": record.opened.annotators, "lead": record.opened.lead} if record else {}
    pages = plan_pages(
        tasks,
        campaign_settings.model_copy(update=asked),
        config_sha256=record.opened.config_sha256 if record else config_sha256(config),
        images=images,
        gold_images=folder / "images",
    )
    training = [page for page in pages if page.kind == "training"]
    pages = [page for page in pages if page.kind != "training"]
    if record and _pages_sha256(pages) != record.opened.pages_sha256:
        pages = list(campaign_files(record).pages().values())
    people = set(filter(None, (*campaign_settings.annotators, campaign_settings.lead)))
    accounts = ensure_annotators(client, people, settings)
    guidelines = campaign_settings.guidelines or default_guidelines(references > 0)
    files = {
        "pages.jsonl": "".join(page.model_dump_json() + "\n" for page in pages),
        "settings.json": campaign_settings.model_dump_json(),
        "guidelines.md": guidelines,
    }
    if training:
        files[TRAINING_PAGES] = "".join(page.model_dump_json() + "\n" for page in training)
    if record is None:
        facts = {
            **campaign_settings.model_dump(include={"name", "overlap", "annotators", "lead", "seed"}),
            "config_sha256": config_sha256(config),
            "candidates_sha256": candidates_sha256,
            "pages_sha256": _pages_sha256(pages),
            "pages": len(pages),
            "wanted": sum(page.overlap for page in pages),
            "tasks": sum(page.kind == "task" for page in pages),
            "places": places,
            "tiny": tiny,
            "gates": campaign_settings.gates.alpha,
        }
        if references:
            facts["references"] = references
        if training:
            facts |= {"training": campaign_settings.training.model_dump(), "training_sha256": _pages_sha256(training)}
        if cancelled := sum(record.campaign.name == campaign_settings.name for record in records):
            facts["opened_before"] = cancelled
        record = _begin(settings, facts, config, {**files, CONFIG: config}, texts, accounts, by)
    record = name_people(settings, record, campaign_settings.annotators, campaign_settings.lead, accounts, by)
    store = picture_store(settings)
    store.put(record.campaign.key, _pictures([*pages, *training], images, folder / "images"))
    by_key = {page.key: page for page in pages}
    record = mend_project(client, settings, record, by_key, guidelines, put_back_page=True).record
    record = mend_training(client, settings, record, guidelines)
    write_json(folder / "campaign.json", record.campaign.model_dump(mode="json"))
    for name, text in files.items():
        write_file(folder / name, text)
    return record.campaign


def _check_picture_names(candidates: Path, tasks: Sequence[EditTask]) -> None:
    """Raise EditLoopError, before anything is opened, if the candidates name pictures by their files.

    Releases up to 0.2.0 did, for all of a folder's pictures; so one tells. Each is checked when it is shown.
    """
    for task in tasks[:1]:
        path = candidates / "images" / f"{task.source}.png"
        if path.is_file() and sha256_file(path) == task.source != file_picture_sha256(path):
            raise EditLoopError(
                f"{candidates}: of release 0.2.0 or earlier, which knew pictures by their files, not by their pixels. "
                "Make the candidates anew by stage candidates; datasets and models of that release go on."
            )


def _has_name(record: CampaignRecord, name: str) -> bool:
    return record.campaign.name == name and record.cancelled is None


def _check_settings(record: CampaignRecord, texts: Mapping[str, str]) -> None:
    """Raise EditLoopError if an open campaign has other settings than it is opened with now.

    Settings that the version that opened it did not know are not compared.
    """
    name = record.campaign.name
    changes = [
        f"{setting} = {record.settings[setting]}, now {text}"
        for setting, text in texts.items()
        if record.settings.get(setting, text) != text
    ]
    if changes:
        raise EditLoopError(
            f"Campaign {name} is open already, with other settings: {'; '.join(changes)}. Answers were given under "
            "those, so they stay. Put them back to go on with it, give another name to open a new campaign, or end "
            f'that one: `editloop campaign cancel "{name}" --reason TEXT`.'
        )


def _begin(
    settings: ServiceSettings,
    facts: dict[str, Any],
    config: str,
    files: Mapping[str, str],
    texts: dict[str, str],
    accounts: dict[str, int],
    by: str,
) -> CampaignRecord:
    """Make the campaign's project and its record.

    A project that was left behind by an opening that was interrupted before the record is used. If another process
    opened the campaign at the same time, its project is the campaign's.
    """
    api, key = LabelStudioApi(settings), sha256_json(facts)[:16]
    campaign = Campaign(key=key, project_id=0, url="", **{name: facts[name] for name in facts if name not in NO_FIELDS})
    project_id = _left_behind(api, key) or make_project(api, project_title(campaign.name), describe(campaign), config)
    campaign = campaign.model_copy(update={"project_id": project_id, "url": settings.project_link(project_id)})
    contents = {"campaign.json": campaign.model_dump_json(), **files}
    assert {*FILES, CONFIG} == contents.keys() - {TRAINING_PAGES}
    event = Opened(key=key, at=now(), by=by, campaign=campaign, settings=texts, accounts=accounts)
    append_event(event, campaign.name, {name: text.encode() for name, text in contents.items()})
    record = read_record(settings, key)
    if record.campaign.project_id != project_id:
        api.call("DELETE", f"/api/projects/{project_id}/")
    return record


def _left_behind(api: LabelStudioApi, key: str) -> int | None:
    projects = list_projects(api, "id", "description")
    ids = [int(project["id"]) for project in projects if key in (project["description"] or "")]
    return min(ids, default=None)


def _pages_sha256(pages: Sequence[Page]) -> str:
    return sha256_json([page.model_dump(mode="json") for page in pages])


def _pictures(pages: Sequence[Page], images: Path, gold_images: Path) -> dict[str, Path]:
    """Return the file of every image that the pages show, by sha256."""
    gold_digests = {path.stem for path in gold_images.glob("*.png")} if gold_images.is_dir() else set()
    digests = {picture for page in pages for picture in (page.source, *page.references, *page.images)}
    return {picture: (gold_images if picture in gold_digests else images) / f"{picture}.png" for picture in digests}


def _tiny(images: Path, tasks: Sequence[EditTask]) -> bool:
    """Whether no source, reference or candidate has a side longer than TINY.

    One larger image is enough for False: without smoothing, thin lines vanish when it is shrunk.
    """
    for task in track(tasks, "sizes"):
        for digest in (task.source, *task.references, *(candidate.image for candidate in task.candidates)):
            with Image.open(images / f"{digest}.png") as picture:
                if max(picture.size) > TINY:
                    return False
    return True

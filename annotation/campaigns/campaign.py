"""A campaign as it was opened: its record, its pages, and where both are found again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, ValidationError

from annotation.campaigns.labelling import config_sha256
from editloop.content import MANIFEST, complete_folder, read_manifest
from editloop.data.vocabulary import Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from infra.settings import ServiceSettings

FACTS = "editloop: "
"""Starts the line of a project's description that holds the campaign's facts as JSON."""
FILES = ("campaign.json", "pages.jsonl", "settings.json", "guidelines.md")
"""What a campaign's folder has beside the pictures of its gold pages."""
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
    pages_sha256: str
    """Content address of all pages, known answers included."""
    pages: int
    wanted: int
    """Answers that complete the campaign: the sum of its pages' overlaps."""
    tasks: int
    """Pages that are asked for their own sake: neither repeats nor gold."""
    places: int
    """Candidates on a page."""
    tiny: bool
    """Whether all pictures are so small that the page enlarges them in hard pixels."""
    overlap: int = Field(ge=1)
    """Annotators who rate each task; repeated pages and gold are asked of everybody."""
    annotators: tuple[str, ...]
    lead: str | None
    """Who decides tasks in conflict."""
    gates: dict[Axis, float]
    """Lowest alpha to close at, by axis; an axis that is not named has no gate."""
    seed: int


def connect(settings: ServiceSettings) -> Any:
    """A label_studio_sdk client of the account that owns the campaigns. EditLoopError where it does not answer."""
    from label_studio_sdk.client import LabelStudio

    url = settings.require("label_studio_url")
    client = LabelStudio(base_url=url, api_key=settings.require("label_studio_token"), timeout=REQUEST_SECONDS)
    try:
        client.users.whoami()
    except Exception as error:  # the SDK lets httpx's and its own errors through
        refused = getattr(error, "status_code", None) in (401, 403)
        raise EditLoopError(
            f"Label Studio at {url} refuses EDITLOOP_LABEL_STUDIO_TOKEN: it was revoked or has expired. Get a token "
            "under Account & Settings there."
            if refused
            else f"Label Studio at {url} does not answer ({type(error).__name__}). See `editloop status`."
        ) from error
    return client


def find_campaigns(client: Any, settings: ServiceSettings) -> list[Campaign]:
    """Every campaign in Label Studio, oldest first; projects that EditLoop did not open are passed over."""
    campaigns = []
    for project in client.projects.list():
        lines = [line for line in (project.description or "").splitlines() if line.startswith(FACTS)]
        if lines:
            try:
                facts = json.loads(lines[0].removeprefix(FACTS))
            except ValueError as error:
                raise _not_a_campaign(project.id, error) from error
            campaigns.append(campaign_of(project.id, facts, settings))
    return sorted(campaigns, key=lambda campaign: campaign.project_id)


def read_campaign(folder: Path) -> Campaign:
    """The campaign that `annotate` opened, from its output folder."""
    read_manifest(folder)
    return Campaign.model_validate_json((folder / "campaign.json").read_text())


def load_pages(folder: Path) -> dict[str, Page]:
    """The pages of a campaign's folder by key, in the order of the queue."""
    lines = (folder / "pages.jsonl").read_text().splitlines()
    pages = [Page.model_validate_json(line) for line in lines]
    return {page.key: page for page in pages}


class CampaignFiles(NamedTuple):
    """Where a campaign's files are, and those of the candidates it asks about where that is known."""

    campaign: Campaign
    folder: Path
    candidates: Path | None


def locate_campaign(client: Any, settings: ServiceSettings, name: str) -> CampaignFiles:
    """A campaign by its folder, its name or its key. EditLoopError where none is found, or several have the name.

    By name or key it is found in Label Studio, and its files in the folder of the annotate run that opened it, or,
    where that is on another machine, as MLflow keeps them.
    """
    folder = Path(name)
    if (folder / "campaign.json").is_file():
        campaign = read_campaign(folder)
        return CampaignFiles(
            campaign,
            folder,
            _candidates_folder(campaign, tracking.find_runs(stage="annotate", campaign_key=campaign.key)),
        )
    campaigns = find_campaigns(client, settings)
    matches = [campaign for campaign in campaigns if name in (campaign.name, campaign.key)]
    if len(matches) != 1:
        lines = [f"  {campaign.key}  {campaign.name}  {campaign.url}" for campaign in matches or campaigns]
        problem = (
            f"{len(matches)} campaigns have that name; use a key"
            if matches
            else "no such campaign or folder; there are"
        )
        raise EditLoopError("\n".join([f"{name}: {problem}:", *(lines or ["  none"])]))
    runs = tracking.find_runs(stage="annotate", campaign_key=matches[0].key)
    if not runs:
        raise EditLoopError(f"{matches[0].name} ({matches[0].key}): MLflow has no annotate run of it; name its folder.")
    return campaign_files(matches[0], runs)


def campaign_files(campaign: Campaign, runs: Sequence[Any]) -> CampaignFiles:
    """Where the campaign's files are, given its annotate runs in MLflow: here, or as MLflow keeps them."""
    for run in runs:
        folder = Path(run.data.tags.get("editloop.uri.output", ""))
        if (folder / MANIFEST).is_file() and read_campaign(folder) == campaign:
            return CampaignFiles(campaign, folder, _candidates_folder(campaign, runs))
    return CampaignFiles(campaign, _downloaded_files(campaign, runs[0].info.run_id), _candidates_folder(campaign, runs))


def live_config_sha256(client: Any, campaign: Campaign) -> str:
    """Content address of the labelling config as the project has it now."""
    return config_sha256(client.projects.get(campaign.project_id).label_config)


def campaign_of(project_id: int, facts: dict[str, Any], settings: ServiceSettings) -> Campaign:
    """The campaign of a Label Studio project whose description holds `facts`. EditLoopError where they were changed."""
    url = f"{settings.require('label_studio_url')}/projects/{project_id}/data?labeling=1"
    try:
        return Campaign(project_id=project_id, url=url, **facts)
    except (ValidationError, TypeError) as error:
        raise _not_a_campaign(project_id, error) from error


def _not_a_campaign(project_id: int, error: Exception) -> EditLoopError:
    return EditLoopError(
        f'The line "{FACTS}..." in the description of Label Studio\'s project {project_id} is not as EditLoop wrote it '
        f"({' '.join(str(error).split())[:120]}). Restore it; without that line the project is passed over."
    )


def _candidates_folder(campaign: Campaign, runs: Sequence[Any]) -> Path | None:
    """The candidates' folder that the campaign's runs name, where it is on this machine."""
    for run in runs:
        folder = Path(run.data.tags.get("editloop.uri.candidates", ""))
        if (folder / MANIFEST).is_file() and read_manifest(folder)["sha256"] == campaign.candidates_sha256:
            return folder
    return None


def _downloaded_files(campaign: Campaign, run_id: str) -> Path:
    """The campaign's files as MLflow keeps them, fetched into the cache."""
    import mlflow

    target = tracking.TrackingSettings().cache / "campaigns" / campaign.key
    if not (target / MANIFEST).is_file():
        with complete_folder(target, {"campaign_key": campaign.key, "config_sha256": campaign.config_sha256}) as folder:
            for name in FILES:
                mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder))
    return target

"""The record of an open campaign and its pages, and how to find both in Label Studio, MLflow or a folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, ValidationError

from annotation.campaigns.campaign_settings import Training
from annotation.campaigns.labelling import config_sha256
from editloop.content import MANIFEST, complete_folder, read_manifest
from editloop.data.candidates_folder import read_lines
from editloop.data.vocabulary import Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.stored_folders import recorded_folder
from infra.settings import ServiceSettings

if TYPE_CHECKING:
    from mlflow.entities import Run

FACTS = "editloop: "
"""Prefix of the line in a project's description that holds the campaign's facts as JSON."""
FILES = ("campaign.json", "pages.jsonl", "settings.json", "guidelines.md")
"""Files of a campaign's folder, apart from the images of its gold pages."""
REQUEST_SECONDS = 120


class Campaign(Record):
    """An open campaign; `campaign.json` holds it."""

    key: str
    """Content address of what is asked of whom. Stages use it as idempotency key."""
    name: str
    project_id: int
    url: str
    """The project's page for annotators."""
    config_sha256: str
    candidates_sha256: str
    pages_sha256: str
    """Content address of all pages, including known answers."""
    pages: int
    wanted: int
    """Number of answers that complete the campaign: the sum of its pages' overlaps."""
    tasks: int
    """Pages that are neither repeats nor gold."""
    places: int
    """Candidates on a page."""
    tiny: bool
    """Whether all images are so small that the page enlarges them without smoothing."""
    overlap: int = Field(ge=1)
    """Number of annotators who rate each task. Everybody rates gold, repeats and the pages that are repeated."""
    annotators: tuple[str, ...]
    lead: str | None
    """Account name of the lead, who decides tasks in conflict; None for none."""
    training: Training | None = None
    """The training round; None where there is none."""
    gates: dict[Axis, float]
    """Lowest alpha to close at, by axis. An axis without an entry has no gate."""
    seed: int


def connect(settings: ServiceSettings) -> Any:
    """Connect to Label Studio as the account that owns the campaigns.

    Args:
        settings: Address and token of Label Studio.

    Returns:
        A label_studio_sdk client.

    Raises:
        EditLoopError: Label Studio does not answer, or refuses the token.
    """
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
    """Return all campaigns in Label Studio, oldest first.

    Projects that EditLoop did not open are ignored.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address of Label Studio.

    Raises:
        EditLoopError: The facts in a project's description were changed.
    """
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
    """Read the campaign from the output folder of stage `annotate`.

    Args:
        folder: The campaign's folder.
    """
    read_manifest(folder)
    return Campaign.model_validate_json((folder / "campaign.json").read_text())


def load_pages(folder: Path) -> dict[str, Page]:
    """Read the pages of a campaign.

    Args:
        folder: The campaign's folder.

    Returns:
        Pages by key, in the order in which annotators get them.
    """
    return {page.key: page for page in read_lines(folder / "pages.jsonl", Page)}


class CampaignFiles(NamedTuple):
    """A campaign with its folder."""

    campaign: Campaign
    folder: Path
    runs: Sequence["Run"]
    """Its annotate runs in MLflow."""

    def find_candidates(self) -> Path | None:
        """Return the candidates folder that the runs name; None if it is not on this machine.

        One in object storage is fetched without its images.
        """
        sha256 = self.campaign.candidates_sha256
        for run in self.runs:
            folder = recorded_folder(run.data.tags, "candidates", skip=("images/*",))
            if folder and (folder / MANIFEST).is_file() and read_manifest(folder)["sha256"] == sha256:
                return folder
        return None


def locate_campaign(client: Any, settings: ServiceSettings, name: str) -> CampaignFiles:
    """Locate a campaign by its folder, name or key.

    A name or key is looked up in Label Studio. The files are then those in the output folder of the campaign's annotate
    run, or, if that folder is not on this machine, a copy from MLflow.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address of Label Studio.
        name: Folder, name or key of the campaign.

    Returns:
        The campaign and its folder.

    Raises:
        EditLoopError: No campaign or several campaigns match, or MLflow has no annotate run of it.
    """
    folder = Path(name)
    if (folder / "campaign.json").is_file():
        campaign = read_campaign(folder)
        runs = tracking.find_runs(stage="annotate", campaign_key=campaign.key)
        return CampaignFiles(campaign, folder, runs)
    campaigns = find_campaigns(client, settings)
    matches = [campaign for campaign in campaigns if name in (campaign.name, campaign.key)]
    if len(matches) != 1:
        lines = [f"  {campaign.key}  {campaign.name}  {campaign.url}" for campaign in matches or campaigns]
        problem = "no such campaign or folder; there are"
        if matches:
            problem = f"{len(matches)} campaigns have that name; use a key"
        raise EditLoopError("\n".join([f"{name}: {problem}:", *(lines or ["  none"])]))
    runs = tracking.find_runs(stage="annotate", campaign_key=matches[0].key)
    if not runs:
        raise EditLoopError(f"{matches[0].name} ({matches[0].key}): MLflow has no annotate run of it; name its folder.")
    return campaign_files(matches[0], runs)


def campaign_files(campaign: Campaign, runs: Sequence["Run"]) -> CampaignFiles:
    """Return where a campaign's files are: in a run's output folder on this machine, else in a copy from MLflow.

    Args:
        campaign: The campaign.
        runs: Its annotate runs in MLflow, at least one.
    """
    for run in runs:
        folder = Path(run.data.tags.get("editloop.uri.output", ""))
        if (folder / MANIFEST).is_file() and read_campaign(folder) == campaign:
            return CampaignFiles(campaign, folder, runs)
    return CampaignFiles(campaign, _downloaded_files(campaign, runs[0].info.run_id), runs)


def live_config_sha256(client: Any, campaign: Campaign) -> str:
    """Return the content address of the labelling config that the project has now.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        campaign: The campaign.
    """
    return config_sha256(client.projects.get(campaign.project_id).label_config)


def campaign_of(project_id: int, facts: dict[str, Any], settings: ServiceSettings) -> Campaign:
    """Build the campaign of a Label Studio project from the facts in its description.

    Args:
        project_id: Label Studio's project id.
        facts: The facts.
        settings: Address of Label Studio.

    Raises:
        EditLoopError: The facts are not as EditLoop wrote them.
    """
    url = settings.project_link(project_id)
    try:
        return Campaign(project_id=project_id, url=url, **facts)
    except (ValidationError, TypeError) as error:
        raise _not_a_campaign(project_id, error) from error


def _not_a_campaign(project_id: int, error: Exception) -> EditLoopError:
    return EditLoopError(
        f'The line "{FACTS}..." in the description of Label Studio\'s project {project_id} is not as EditLoop wrote it '
        f"({' '.join(str(error).split())[:120]}). Restore it; without that line the project is passed over."
    )


def _downloaded_files(campaign: Campaign, run_id: str) -> Path:
    """Download the campaign's files from MLflow into the cache, if they are not there yet, and return their folder."""
    import mlflow

    target = tracking.TrackingSettings().cache / "campaigns" / campaign.key
    if not (target / MANIFEST).is_file():
        with complete_folder(target, {"campaign_key": campaign.key, "config_sha256": campaign.config_sha256}) as folder:
            for name in FILES:
                mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder))
    return target

"""A campaign and its pages, as stage `annotate` writes them into a folder, and the connection to Label Studio."""

from pathlib import Path
from typing import Any

from pydantic import Field

from annotation.campaigns.campaign_settings import Training
from editloop.content import RESTORE, read_manifest
from editloop.data.candidates_folder import read_lines
from editloop.data.vocabulary import Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.json_file import read_json_record
from infra.settings import ServiceSettings

REQUEST_SECONDS = 120


class Campaign(Record):
    """A campaign as it was opened (`campaign.json` holds it), or as its record says that it is now."""

    key: str
    """Content address of what was asked of whom at the opening. Stages use it as idempotency key."""
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
    """Number of answers that complete the campaign with the annotators that it opened with."""
    tasks: int
    """Pages of kind `task`: those that models learn from."""
    places: int
    """Candidates on a page."""
    references: int = Field(default=0, exclude_if=lambda references: references == 0)
    """Most reference images of a page. Files leave it out where there are none."""
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


def read_campaign(folder: Path) -> Campaign:
    """Read the campaign from the output folder of stage `annotate`.

    Args:
        folder: The campaign's folder.

    Raises:
        EditLoopError: The folder is no campaign's, or is damaged.
    """
    read_manifest(folder)
    return read_json_record(folder / "campaign.json", Campaign, RESTORE)


def load_pages(folder: Path) -> dict[str, Page]:
    """Read the pages of a campaign.

    Args:
        folder: The campaign's folder.

    Returns:
        Pages by key, in the order in which annotators get them.
    """
    return {page.key: page for page in read_lines(folder / "pages.jsonl", Page)}

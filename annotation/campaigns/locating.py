"""Locate a campaign: its record, and its files in a folder on this machine or in MLflow."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from annotation.campaigns.campaign import Campaign, load_pages, read_campaign
from annotation.campaigns.people import record_joined
from annotation.campaigns.record import EARLIER, CampaignRecord, opened_file, read_record, read_records
from editloop.content import MANIFEST, complete_folder, read_manifest, write_file
from editloop.data.vocabulary import Page
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.stored_folders import recorded_folder
from infra.settings import ServiceSettings

if TYPE_CHECKING:
    from mlflow.entities import Run

CONFIG = "labelling.xml"
"""File of the record's opening: the labelling config."""
FILES = ("campaign.json", "pages.jsonl", "settings.json", "guidelines.md")
"""Files of a campaign's folder, apart from the images of its gold pages; the record's opening has them too."""


class CampaignFiles(NamedTuple):
    """A campaign's record with its folder."""

    record: CampaignRecord
    folder: Path
    runs: Sequence["Run"]
    """Its annotate runs in MLflow, newest first."""

    @property
    def campaign(self) -> Campaign:
        """The campaign as it is now."""
        return self.record.campaign

    def pages(self) -> dict[str, Page]:
        """Return the campaign's pages by key."""
        return load_pages(self.folder)

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


def locate_campaign(settings: ServiceSettings, name: str) -> CampaignFiles:
    """Locate a campaign by its folder, name or key.

    Args:
        settings: Address of Label Studio.
        name: Folder, name or key of the campaign.

    Returns:
        Its record and its folder.

    Raises:
        EditLoopError: No campaign or several campaigns match.
    """
    folder = Path(name)
    if (folder / "campaign.json").is_file():
        record = record_joined(settings, read_record(settings, read_campaign(folder).key))
        return CampaignFiles(record, folder, annotate_runs(record))
    records = read_records(settings)
    matches = [record for record in records if name in (record.campaign.name, record.campaign.key)]
    matches = [record for record in matches if not record.cancelled] or matches
    if len(matches) != 1:
        campaigns = [record.campaign for record in matches or records]
        lines = [f"  {campaign.key}  {campaign.name}  {campaign.url}" for campaign in campaigns]
        problem = "no such campaign or folder; there are"
        if matches:
            problem = f"{len(matches)} campaigns have that name; use a key"
        elif near := get_close_matches(name, [campaign.name for campaign in campaigns], n=1):
            problem = f"no such campaign or folder. Did you mean {near[0]}? There are"
        earlier = [] if matches else [EARLIER.replace("none", "no record")]
        raise EditLoopError("\n".join([f"{name}: {problem}:", *(lines or ["  none"]), *earlier]))
    return campaign_files(record_joined(settings, matches[0]))


def campaign_files(record: CampaignRecord, runs: "Sequence[Run] | None" = None) -> CampaignFiles:
    """Return where a campaign's files are: in a run's output folder on this machine, else in a copy from MLflow.

    Args:
        record: The campaign's record.
        runs: Its annotate runs; None to look for them.
    """
    runs = annotate_runs(record) if runs is None else runs
    for run in runs:
        folder = Path(run.data.tags.get("editloop.uri.output", ""))
        if (folder / MANIFEST).is_file() and read_campaign(folder).key == record.campaign.key:
            return CampaignFiles(record, folder, runs)
    return CampaignFiles(record, _downloaded_files(record), runs)


def annotate_runs(record: CampaignRecord) -> "list[Run]":
    """Return the runs of stage annotate that opened a campaign, newest first.

    Args:
        record: The campaign's record.
    """
    return tracking.find_runs(stage="annotate", campaign_key=record.campaign.key)


def _downloaded_files(record: CampaignRecord) -> Path:
    """Download the campaign's files from MLflow into the cache, if they are not there yet, and return their folder."""
    campaign = record.campaign
    target = tracking.TrackingSettings().cache / "campaigns" / campaign.key
    if not (target / MANIFEST).is_file():
        with complete_folder(target, {"campaign_key": campaign.key, "config_sha256": campaign.config_sha256}) as folder:
            for name in FILES:
                write_file(folder / name, opened_file(record, name))
    return target

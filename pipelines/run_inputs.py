"""What a run's form names: edits folders, campaigns, editors and models, looked up by the first step."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from annotation.campaigns.campaign import connect
from annotation.campaigns.lead_queue import snapshot
from annotation.campaigns.locating import locate_campaign
from editloop.content import MANIFEST, read_manifest, sha256_bytes
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError, there_are
from editloop.lineage import registry, tracking
from editloop.object_folders import folder_digest
from editloop.object_storage import ObjectFolder, StorageError, is_address
from infra.settings import service_settings

EDITS_FILE = "edits.jsonl"
MODELS = "models:/"
EDITOR_PARAMETERS = {
    "candidates": "editor",
    "editor_sft": "editor",
    "editor_dpo": "editor",
    "editor_rl": "editor",
    "editor_eval": "base",
}
"""Parameter that names an editor, by stage."""
MODEL_PARAMETERS = ("editor", "base", "reward", "judge", "champion", "watch")
"""Parameters that may hold addresses of registered models, separated by spaces."""


class EditsSettings(EnvironmentSettings):
    """Where edits folders are that forms give by name."""

    edits: str | None = None
    """Folder, or s3://BUCKET/PREFIX, of edits folders: `kitchens` in a form means the folder kitchens there."""


@dataclass(frozen=True)
class Source:
    """Where an input of a run is."""

    address: str
    sha256: str
    """Content address; empty where it is not known."""


def find_edits(field: str, address: str) -> Source:
    """Find a folder of edits.

    Args:
        field: The form's field, for messages.
        address: A name in EDITLOOP_EDITS, a path, or s3://BUCKET/PREFIX.

    Raises:
        EditLoopError: Nothing is there, or the storage does not answer.
    """
    root = EditsSettings().edits
    if root and "/" not in address and not Path(address).exists():
        names = _edits_names(field, root)
        if address not in names:
            raise EditLoopError(
                f"{field}: {address!r} is no folder with {EDITS_FILE} in EDITLOOP_EDITS={root}; "
                f"{there_are(address, names)}"
            )
        address = f"{root.rstrip('/')}/{address}"
    if is_address(address):
        return Source(address, _bucket_digest(field, address))
    folder = Path(address)
    if not folder.exists():
        raise EditLoopError(
            f"{field}: {address} does not exist. Give a folder with {EDITS_FILE}, or its name in EDITLOOP_EDITS."
        )
    return Source(address, str(read_manifest(folder)["sha256"]) if (folder / MANIFEST).is_file() else "")


def find_campaign_files(name: str, campaign: str) -> Source:
    """Find a campaign's files by its name or key, as the run that opened it recorded them.

    Args:
        name: `candidates` for its candidates, else for its own folder.
        campaign: The campaign's name or key.

    Raises:
        EditLoopError: No campaign or several campaigns match.
    """
    opened = [run for run in tracking.find_runs(stage="annotate") if "editloop.uri.candidates" in run.data.tags]
    names = [str(run.data.params.get("name")) for run in opened]
    opened = [
        run for run in opened if campaign in (run.data.params.get("name"), run.data.tags.get("editloop.campaign_key"))
    ]
    if not opened:
        raise EditLoopError(
            f"campaign: MLflow knows no run that opened {campaign!r} by a pipeline; "
            f"{there_are(campaign, dict.fromkeys(names)) if names else 'there is none.'} Its name is the title of its "
            "project in Label Studio; one that was opened in another way is trained stage by stage."
        )
    keys = sorted({str(run.data.tags.get("editloop.campaign_key")) for run in opened})
    if len(keys) > 1:
        raise EditLoopError(
            f"campaign: {campaign!r} is the name of {len(keys)} campaigns; give a key: {', '.join(keys)}"
        )
    tags = opened[0].data.tags
    if name == "candidates":
        return Source(tags["editloop.uri.candidates"], tags["editloop.input.candidates"])
    return Source(tags["editloop.uri.output"], tags["editloop.output.output"])


def present_answers(campaign: str) -> str:
    """Return the content address of the answers that a campaign has now.

    Args:
        campaign: The campaign's name or key.

    Raises:
        EditLoopError: There is no such campaign, or Label Studio does not answer.
    """
    settings = service_settings()
    connect(settings)
    located = locate_campaign(settings, campaign)
    return snapshot(settings, located.record, located.pages()).sha256


def pin_models(stage: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stage's parameters with each registered model by the number of its version.

    An alias moves. A number is content, so that a cache of steps never gives a run what an earlier champion led to.

    Args:
        stage: The stage.
        parameters: Its parameters. Words in MODEL_PARAMETERS that begin with `models:/` are looked up. An editor may be
            given by its name in the registry, which means the champion.

    Raises:
        EditLoopError: There is no such model.
    """
    pinned = dict(parameters)
    for name in MODEL_PARAMETERS:
        value = str(parameters.get(name, ""))
        if EDITOR_PARAMETERS.get(stage) == name:
            value = _editor_address(name, value)
        if MODELS in value:
            words = (_pinned(name, word) if word.startswith(MODELS) else word for word in value.split())
            pinned[name] = " ".join(words)
    return pinned


def present_champion(name: str) -> str:
    """Return the address of the version that is champion now; empty where there is none.

    Args:
        name: Name in the registry.
    """
    version = registry.find_version(f"{MODELS}{name}@{registry.CHAMPION}")
    return f"{MODELS}{name}/{version.version}" if version else ""


def _editor_address(parameter: str, editor: str) -> str:
    """Return an editor's address, where it is given by its name in the registry."""
    shipped = [entry.name for entry in (files("editloop.models.editors") / "weights").iterdir()]
    if "/" in editor or editor in shipped or Path(editor).exists():
        return editor
    names = [str(model.name) for model in tracking.all_pages(tracking.client().search_registered_models)]
    if editor not in names:
        raise EditLoopError(f"{parameter}: no editor {editor!r}; {there_are(editor, [*shipped, *names])}")
    return f"{MODELS}{editor}@{registry.CHAMPION}"


def _pinned(parameter: str, address: str) -> str:
    version = registry.find_version(address)
    if version is None:
        raise EditLoopError(
            f"{parameter}: {address}: the registry has no such version. `editloop registry` lists what there is; "
            "train-reward makes a reward champion, improve-editor one of an editor."
        )
    return f"{MODELS}{version.name}/{version.version}"


def _edits_names(field: str, root: str) -> list[str]:
    """Return the names of the edits folders in a folder or below a bucket's prefix."""
    if not is_address(root):
        return sorted(path.parent.name for path in Path(root).glob(f"*/{EDITS_FILE}"))
    try:
        names = ObjectFolder(root).names()
    except StorageError as error:
        raise EditLoopError(f"{field}: EDITLOOP_EDITS: {error}") from error
    return sorted(name.split("/")[0] for name in names if name.count("/") == 1 and name.endswith(f"/{EDITS_FILE}"))


def _bucket_digest(field: str, address: str) -> str:
    """Return the content address of a folder in a bucket: its manifest's, or else that of its edits.jsonl."""
    try:
        if digest := folder_digest(address):
            return digest
        edits = ObjectFolder(address).read(EDITS_FILE)
    except StorageError as error:
        raise EditLoopError(f"{field}: {error}") from error
    if edits is None:
        raise EditLoopError(f"{field}: {address} has no {EDITS_FILE}. Give a folder with edits.")
    return sha256_bytes(edits)

"""One reconcile pass: close the campaigns that are complete, start the pipelines that are due, and return.

The pass keeps no state of its own: Label Studio knows which campaigns are complete and closed, MLflow which pipelines
ran. Each pipeline starts under a key made of its inputs, so that a second pass, here or elsewhere, starts nothing
twice.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from annotation.campaigns.answers import CampaignProgress
from annotation.campaigns.campaign import Campaign, campaign_files, connect, find_campaigns, load_pages
from annotation.campaigns.closing import close_campaign, closings, readiness
from editloop.content import sha256_json
from editloop.data.vocabulary import Page
from editloop.datasets.settings import DatasetSettings
from editloop.datasets.withdrawal import Withdrawal, read_withdrawals
from editloop.errors import EditLoopError
from editloop.file_lock import file_lock
from editloop.lineage import registry, tracking
from infra.settings import ServiceSettings, service_settings
from pipelines.backend import Start
from pipelines.catalogue import find_pipeline
from pipelines.run_status import RunStatus

LAST_STAGE = {"collect-preferences": "annotate", "train-reward": "promote", "improve-editor": "editor_eval"}
"""The last stage of each pipeline, which tells whether a run finished."""
CHAMPION = f"models:/edit-reward@{registry.CHAMPION}"


@dataclass(frozen=True)
class PendingCampaign:
    """A campaign for which no pipeline can start yet."""

    campaign: Campaign
    progress: CampaignProgress
    reason: str
    """What the campaign waits for, and how to continue."""


@dataclass
class ReconcileResult:
    """Result of one reconcile pass."""

    waiting: list[PendingCampaign] = field(default_factory=list)
    edited: list[Campaign] = field(default_factory=list)
    """Campaigns whose answers were edited after their last closing. Closing them again starts a new training."""
    runs: list[RunStatus] = field(default_factory=list)
    """Where the runs stand that are due."""
    failures: list[str] = field(default_factory=list)
    """Campaigns that could not be looked at, each with the reason."""


def reconcile(start: Start, root: Path | None) -> ReconcileResult:
    """Close every campaign that can close, start train-reward for it, and improve-editor for a champion of it.

    The first time, a campaign closes by itself, when all pages are answered and its gates hold. After that only people
    close it again (`editloop campaign close`). Train-reward starts for the latest closing, and again after an annotator
    or a task of the campaign was withdrawn. The arguments are those of the campaign's `follow_up` (a parameter of
    collect-preferences). Without arguments for improve-editor, that pipeline does not start. A campaign that fails does
    not stop the others.

    Args:
        start: Runs a pipeline.
        root: Folder of the lock that keeps two passes on this machine apart; None where a server keeps runs apart.

    Returns:
        The pending and edited campaigns, where the runs stand, and the failures.
    """
    reconciled, settings = ReconcileResult(), service_settings()
    if root:
        root.mkdir(parents=True, exist_ok=True)
    with file_lock(root / "reconcile.lock") if root else nullcontext():
        client = connect(settings)
        repo = DatasetSettings().dataset_repo
        withdrawals = read_withdrawals(repo) if repo else []
        for campaign in find_campaigns(client, settings):
            try:
                _advance(reconciled, start, client, settings, campaign, withdrawals)
            except EditLoopError as error:
                reconciled.failures.append(f"{campaign.name} ({campaign.key}): {error}")
    return reconciled


def _advance(
    reconciled: ReconcileResult,
    start: Start,
    client: Any,
    settings: ServiceSettings,
    campaign: Campaign,
    withdrawals: Sequence[Withdrawal],
) -> None:
    """Close a campaign that can close, and start what is due for it."""
    runs = tracking.find_runs(stage="annotate", campaign_key=campaign.key)
    if not runs:
        return  # being opened at this moment, or opened where another MLflow keeps the record
    pages = load_pages(campaign_files(campaign, runs).folder)
    ready = readiness(client, settings, campaign, pages)
    campaign_closings = closings(client, campaign)
    if not campaign_closings and (hindrance := ready.closing_obstacle or ready.gate_shortfall):
        reconciled.waiting.append(PendingCampaign(campaign, ready.progress, hindrance))
        return
    opened: dict[str, str] = runs[0].data.tags
    if "editloop.uri.candidates" not in opened:
        return  # opened by `dvc repro` or stage by stage: whoever did so goes on
    closing = campaign_closings[-1] if campaign_closings else close_campaign(client, campaign, ready)
    follow_up = json.loads(opened["editloop.follow_up"])
    training = {
        "campaign": campaign.key,
        "answers_sha256": closing.answers_sha256,
        "withdrawn_sha256": withdrawals_sha256(campaign, pages, withdrawals),
        **follow_up.get("train-reward", {}),
    }
    if closing.answers_sha256 != ready.answers_sha256:
        reconciled.edited.append(campaign)
        if not has_finished_run("train-reward", _key("train-reward", campaign.key, training)):
            reason = (
                f"Answers of campaign {campaign.name} were edited after it closed, and nothing was trained on "
                f'it yet: `editloop campaign close "{campaign.name}"` takes them as they are now.'
            )
            reconciled.waiting.append(PendingCampaign(campaign, ready.progress, reason))
            return
    _once(reconciled, start, "train-reward", campaign.key, training)
    champion = registry.find_version(CHAMPION)
    if champion is None or champion.tags.get("editloop.campaign_key") != campaign.key:
        return  # not this campaign's model: its own campaign improves the editor
    if "improve-editor" in follow_up:
        cause = champion.tags["editloop.sha256"][:16]
        _once(reconciled, start, "improve-editor", cause, follow_up["improve-editor"])


def withdrawals_sha256(campaign: Campaign, pages: Mapping[str, Page], withdrawals: Sequence[Withdrawal]) -> str:
    """Return the content address of the withdrawals that concern a campaign; "" where none does.

    Args:
        campaign: The campaign. Its annotators and its lead count.
        pages: The campaign's pages. Their tasks count.
        withdrawals: All withdrawals of the dataset repository.
    """
    names: dict[str, set[str | None]] = {
        "annotator": {*campaign.annotators, campaign.lead},
        "task": {page.task_id for page in pages.values()},
    }
    concerned = sorted(
        [withdrawal.kind, withdrawal.name] for withdrawal in withdrawals if withdrawal.name in names[withdrawal.kind]
    )
    return sha256_json(concerned) if concerned else ""


def has_finished_run(pipeline: str, key: str) -> bool:
    """Return whether a run of the pipeline with this key finished its last stage.

    Args:
        pipeline: The pipeline, a key of LAST_STAGE.
        key: The run's key.
    """
    return bool(tracking.find_runs(stage=LAST_STAGE[pipeline], pipeline_run=key, finished=True, limit=1))


def _once(reconciled: ReconcileResult, start: Start, pipeline: str, cause: str, arguments: dict[str, Any]) -> None:
    key = _key(pipeline, cause, arguments)
    if has_finished_run(pipeline, key):
        reconciled.runs.append(RunStatus(key, "done"))
        return
    reconciled.runs.append(start(pipeline, find_pipeline(pipeline).arguments(arguments | {"run_key": key})))


def _key(pipeline: str, cause: str, arguments: dict[str, Any]) -> str:
    return f"{pipeline}-{cause}-{sha256_json(arguments)[:8]}"

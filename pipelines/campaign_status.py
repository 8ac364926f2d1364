"""State of a campaign, for its lead: progress, faults, agreement, closings, and edits after the last closing."""

import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from annotation.campaigns.answers import CampaignProgress, changed_annotations, read_export
from annotation.campaigns.campaign import Campaign, connect, load_pages, locate_campaign
from annotation.campaigns.closing import closings, readiness
from annotation.campaigns.lead_queue import Snapshot, decided, find_queue, lead_answers, snapshot
from editloop.data.vocabulary import AXES, AXIS_NAMES
from editloop.lineage import tracking
from editloop.terminal import text_console
from infra.settings import service_settings

LISTED_FAULTS = 10
"""Faults that are printed; the others are only counted."""


def campaign_status(name: str) -> dict[str, Any]:
    """Return the state of a campaign as a dict that can be written as JSON.

    Args:
        name: Folder, name or key of the campaign.

    Returns:
        {"name", "key", "url", "progress": {...}, "config_faults": [...], "agreement": {axis: {...}}, "gates",
        "conflicts", "adjudication", "answers_sha256", "closings": [...], "closed", "edited", "hindrance"}.

        - adjudication: {"url", "tasks", "decided"} of the lead's queue; None where no queue is open.
        - closed: whether the present answers are those of the last closing.
        - edited: what changed since the last closing; None for nothing, or without a closing.
        - hindrance: why the campaign cannot close; None where it can.

    Raises:
        EditLoopError: No campaign or several campaigns match, or MLflow has no annotate run of it.
    """
    settings = service_settings()
    client = connect(settings)
    located = locate_campaign(client, settings, name)
    campaign, pages = located.campaign, load_pages(located.folder)
    live = snapshot(client, settings, campaign)
    ready = readiness(client, settings, campaign, pages, live)
    earlier_closings = closings(client, campaign)
    last_sha256 = earlier_closings[-1].answers_sha256 if earlier_closings else None
    closed = last_sha256 == live.sha256
    queue = find_queue(client, settings, campaign)
    lead = lead_answers(client, campaign, pages, live.decisions)
    return {
        "name": campaign.name,
        "key": campaign.key,
        "url": campaign.url,
        "progress": {**ready.progress.model_dump(), "complete": ready.progress.complete},
        "config_faults": ready.config_faults,
        "agreement": ready.agreement,
        "gates": campaign.gates,
        "conflicts": ready.conflicts,
        "adjudication": {"url": queue.url, "tasks": len(lead.rows), "decided": len(decided(lead))} if queue else None,
        "answers_sha256": live.sha256,
        "closings": [closing.model_dump(mode="json") for closing in earlier_closings],
        "closed": closed,
        "edited": _edit_summary(campaign, last_sha256, live) if last_sha256 and not closed else None,
        "hindrance": ready.closing_obstacle or ready.gate_shortfall,
    }


def show_status(status: dict[str, Any]) -> None:
    """Print the state of a campaign.

    Args:
        status: What `campaign_status` returned.
    """
    console = text_console()
    values = {name: value for name, value in status["progress"].items() if name in CampaignProgress.model_fields}
    progress = CampaignProgress.model_validate(values)
    table = Table(title=f"{status['name']} ({status['key']})", show_header=False, title_justify="left")
    table.add_column()
    table.add_column(overflow="fold")
    rows = [
        ("pages answered", f"{progress.answered} of {progress.pages}"),
        ("answers", f"{progress.annotations} of {progress.wanted}"),
        *((f"  {name}", str(count)) for name, count in progress.by_annotator.items()),
        *((f"  cannot judge: {reason}", str(count)) for reason, count in progress.cannot.items()),
        ("skipped without a reason", str(progress.skipped)),
        ("lack a rating", str(progress.unfinished)),
        ("given twice, the later counts", str(progress.repeated)),
        ("by others, not used", str(progress.others)),
        ("pages not in Label Studio", str(progress.missing)),
        *(
            (f"agreement: {AXIS_NAMES[axis]}", _agreement_text(status["agreement"][axis], status["gates"].get(axis)))
            for axis in AXES
        ),
        ("tasks in conflict", str(status["conflicts"])),
        ("adjudication", _adjudication_text(status["adjudication"])),
        ("labelling config", "changed" if status["config_faults"] else "as it was opened"),
        ("closed", _closing_text(status)),
        ("address", status["url"]),
    ]
    for row in rows:
        table.add_row(*row)
    console.print(table)
    faults = progress.faults
    for line in [*status["config_faults"], *faults[:LISTED_FAULTS]]:
        console.print(f"! {line}")
    if len(faults) > LISTED_FAULTS:
        console.print(f"! and {len(faults) - LISTED_FAULTS} more faults; --json has all")
    if status["edited"]:
        console.print(
            f"! Edited after the campaign closed: {status['edited']}. What was made of the closed answers stays as it "
            f'is; `editloop campaign close "{status["name"]}"` takes the answers as they are now.',
        )
    elif status["hindrance"] and not status["closed"]:
        console.print(status["hindrance"])


def _edit_summary(campaign: Campaign, closed_sha256: str, live: Snapshot) -> str:
    """Describe which annotations changed since a closing, if a collect run kept that closing's answers."""
    tags = {"campaign_key": campaign.key, "answers_sha256": closed_sha256}
    for run in tracking.find_runs(tags, stage="collect", finished=True, limit=1):
        return changed_annotations(logged_snapshot(run.info.run_id).digests, live.digests)
    return "something, and no collect run kept the closed answers to tell what"


def logged_snapshot(run_id: str) -> Snapshot:
    """Return the exports of a campaign that a collect run logged to MLflow.

    Args:
        run_id: Id of the MLflow run.

    Raises:
        MlflowException: The run has no such artifacts.
    """
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as temporary:
        names = ("export.json", "adjudication.json")
        paths = [download_artifacts(run_id=run_id, artifact_path=name, dst_path=temporary) for name in names]
        votes, decisions = (read_export(Path(path).read_bytes()) for path in paths)
    return Snapshot(votes, decisions)


def _agreement_text(agreement: dict[str, Any], gate: float | None) -> str:
    if agreement["alpha"] is None:
        text = f"undefined ({agreement.get('note', 'nothing to compare')})"
    else:
        low, high = agreement["ci95"] or (None, None)
        text = f"alpha {agreement['alpha']:.3f}" + ("" if low is None else f" (95 % {low:.3f} to {high:.3f})")
    return text if gate is None else f"{text}, gate {gate:.2f}"


def _adjudication_text(queue: dict[str, Any] | None) -> str:
    return "no queue is open" if queue is None else f"{queue['decided']} of {queue['tasks']} decided, {queue['url']}"


def _closing_text(status: dict[str, Any]) -> str:
    if not status["closings"]:
        return "no"
    last = status["closings"][-1]
    text = f"{last['at']}, {'as the answers are now' if status['closed'] else 'EDITED SINCE'}"
    return text + (f", accepted by {last['accepted']['by']}: {last['accepted']['reason']}" if last["accepted"] else "")

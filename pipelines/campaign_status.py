"""State of a campaign, for its lead: progress, faults, agreement, closings, and edits after the last closing."""

from typing import Any

from rich.table import Table

from annotation.campaigns.answers import CampaignProgress, changed_annotations
from annotation.campaigns.campaign import connect
from annotation.campaigns.closing import cancellation_text, closed_digests, readiness
from annotation.campaigns.lead_queue import decided, snapshot
from annotation.campaigns.locating import locate_campaign
from annotation.campaigns.training import TrainingState
from editloop.data.vocabulary import AXES, AXIS_NAMES
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
        "conflicts", "adjudication", "training", "answers_sha256", "closings": [...], "closed", "edited", "cancelled",
        "left", "strangers", "hindrance"}.

        - adjudication: {"url", "tasks", "decided"} of the lead's queue; None where no queue is open.
        - training: how each annotator does in the training round; None without one.
        - closed: whether the present answers are those of the last closing.
        - edited: what changed since the last closing; None for nothing, or without a closing.
        - cancelled: who cancelled the campaign and why; None where nobody did.
        - left: when each former annotator was removed.
        - strangers: runs in the campaign's record that count for nothing, each with the reason.
        - hindrance: why the campaign cannot close; None where it can.

    Raises:
        EditLoopError: No campaign or several campaigns match, its project was deleted, or Label Studio does not answer.
    """
    settings = service_settings()
    connect(settings)
    located = locate_campaign(settings, name)
    record, campaign, pages = located.record, located.campaign, located.pages()
    live = snapshot(settings, record, pages)
    ready = readiness(settings, record, pages, live)
    closed = bool(record.closings) and record.closings[-1].answers_sha256 == live.sha256
    edited = bool(record.closings) and not closed
    queue, lead = record.queue, live.lead
    return {
        "name": campaign.name,
        "key": campaign.key,
        "url": campaign.url,
        "progress": {**ready.progress.model_dump(), "complete": ready.progress.complete},
        "config_faults": ready.config_faults,
        "agreement": ready.agreement,
        "gates": campaign.gates,
        "conflicts": ready.conflicts,
        "adjudication": (
            {"url": queue.campaign.url, "tasks": len(lead.rows), "decided": len(decided(lead))} if queue else None
        ),
        "training": live.training.model_dump(mode="json") if live.training else None,
        "answers_sha256": live.sha256,
        "closings": [closing.model_dump(mode="json") for closing in record.closings],
        "closed": closed,
        "edited": changed_annotations(closed_digests(record), live.digests) if edited else None,
        "cancelled": cancellation_text(record) if record.cancelled else None,
        "left": {name: at.isoformat() for name, at in record.left.items()},
        "strangers": list(record.strangers),
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
        *(
            (f"  {name}" + (" (left)" if name in status["left"] else ""), str(count))
            for name, count in progress.by_annotator.items()
        ),
        *((f"  cannot judge: {reason}", str(count)) for reason, count in progress.cannot.items()),
        ("skipped without a reason", str(progress.skipped)),
        ("lack a rating", str(progress.unfinished)),
        ("given twice, the later counts", str(progress.repeated)),
        ("by others, not used", str(progress.others)),
        *_training_rows(status["training"], progress.untrained),
        ("by deleted accounts, not used", str(progress.deleted_accounts)),
        ("changed by somebody else, not used", str(len(progress.changed_by_others))),
        ("read from the record instead", str(progress.kept)),
        ("begun, not submitted", str(progress.drafts)),
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
    faults = [*_accidents(progress), *progress.faults, *(f"In the record: {line}" for line in status["strangers"])]
    for line in [*status["config_faults"], *faults[:LISTED_FAULTS]]:
        console.print(f"! {line}")
    if len(faults) > LISTED_FAULTS:
        console.print(f"! and {len(faults) - LISTED_FAULTS} more faults; --json has all")
    if status["cancelled"]:
        console.print(f"! {status['cancelled']}")
    elif status["edited"]:
        console.print(
            f"! Edited after the campaign closed: {status['edited']}. What was made of the closed answers stays as it "
            f'is; `editloop campaign close "{status["name"]}"` takes the answers as they are now.',
        )
    elif status["hindrance"] and not status["closed"]:
        console.print(status["hindrance"])


def _accidents(progress: CampaignProgress) -> list[str]:
    """What people did in Label Studio that the lead should know of, and what follows."""
    lines = []
    if progress.others:
        lines.append(
            f"{progress.others} answers are by accounts that are none of the annotators', or were not any more. Their "
            "pages are given to the annotators all the same (`editloop reconcile` sees to it)."
        )
    if progress.deleted_accounts:
        lines.append(
            f"{progress.deleted_accounts} answers are by deleted accounts, and the record does not say whose they were."
        )
    lines += [
        f"Somebody else than its author made or changed an answer ({where}), so it does not count until its author "
        "opens it and presses Update."
        for where in progress.changed_by_others
    ]
    if progress.kept:
        lines.append(
            f"{progress.kept} answers were changed by others or lost their account; they count as their authors left "
            "them, from the copy in the campaign's record."
        )
    if progress.predictions:
        lines.append(f"{progress.predictions} suggested answers are on the pages; `editloop reconcile` deletes them.")
    if progress.duplicates:
        lines.append(
            f"{progress.duplicates} tasks show a page that another one shows; no page is asked twice for that."
        )
    return lines


def _agreement_text(agreement: dict[str, Any], gate: float | None) -> str:
    if agreement["alpha"] is None:
        text = f"undefined ({agreement.get('note', 'nothing to compare')})"
    else:
        low, high = agreement["ci95"] or (None, None)
        text = f"alpha {agreement['alpha']:.3f}" + ("" if low is None else f" (95 % {low:.3f} to {high:.3f})")
    return text if gate is None else f"{text}, gate {gate:.2f}"


def _training_rows(training: dict[str, Any] | None, untrained: int) -> list[tuple[str, str]]:
    if training is None:
        return []
    state = TrainingState.model_validate(training)
    effect = f"{untrained} answers do not count yet" if state.required else "everybody's answers count"
    address = "its project was deleted, and reconcile makes it anew" if state.deleted else state.url
    rows = [("training", f"{state.passing:.0%} right to pass, {effect}, {address}")]
    for name, result in state.annotators.items():
        share = "" if result.right is None else f", {result.right:.0%} right"
        changed = f", {result.changed} changed afterwards" if result.changed else ""
        verdict = "passed" if result.passed else "NOT PASSED" if result.answered == result.pages else "not finished"
        rows.append((f"  {name}", f"{verdict}: {result.answered} of {result.pages} pages{share}{changed}"))
    return rows


def _adjudication_text(queue: dict[str, Any] | None) -> str:
    return "no queue is open" if queue is None else f"{queue['decided']} of {queue['tasks']} decided, {queue['url']}"


def _closing_text(status: dict[str, Any]) -> str:
    if not status["closings"]:
        return "no"
    last = status["closings"][-1]
    closed_by = f" by {last['by']}" if last["by"] else ""
    text = f"{last['at']}{closed_by}, {'as the answers are now' if status['closed'] else 'EDITED SINCE'}"
    return text + (f", accepted by {last['accepted']['by']}: {last['accepted']['reason']}" if last["accepted"] else "")

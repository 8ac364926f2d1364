"""Close a campaign: record the content address of its answers once they are complete and reach the agreement gates.

Closings are events of the campaign's record. Answers that are edited later no longer match the last closing; closing
again acknowledges the edits.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from annotation.campaigns.answers import CampaignProgress, answers_sha256, extract_judgements, progress
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.counters import repair_counters
from annotation.campaigns.kept_answers import keep_answers
from annotation.campaigns.label_studio import LabelStudioApi, read_project
from annotation.campaigns.labelling import check_config, config_sha256
from annotation.campaigns.lead_queue import Snapshot
from annotation.campaigns.record import Acceptance, CampaignRecord, Closed, Closing, append_event, now, read_file
from annotation.campaigns.training import keep_trained
from annotation.quality.conflicts import conflicts
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.statistics.agreement import agreement
from editloop.statistics.judgement_table import judgement_table
from infra.settings import ServiceSettings

DIGESTS = "answers.json"
"""File of a closing: the content addresses of the answers by annotation id."""
SHOWN_FAULTS = 5


class Readiness(Record):
    """State of a campaign that decides whether it can close."""

    name: str
    url: str
    progress: CampaignProgress
    answers_sha256: str
    config_faults: list[str]
    """Differences of the labelling config from the one that the campaign opened with."""
    agreement: dict[Axis, dict[str, Any]]
    """Figures of `editloop.statistics.agreement.agreement`, by axis."""
    gates: dict[Axis, float]
    conflicts: int
    """Tasks in conflict."""

    @property
    def alpha(self) -> dict[Axis, float | None]:
        """Krippendorff's alpha by axis; None where it is undefined."""
        return {axis: figures["alpha"] for axis, figures in self.agreement.items()}

    @property
    def closing_obstacle(self) -> str | None:
        """Reason why the campaign cannot close even with --accept; None if it can.

        Either the labelling config was changed, or answers are missing.
        """
        if self.config_faults:
            return f"The page of campaign {self.name} is not what it was. {' '.join(self.config_faults)}"
        state = self.progress
        if state.complete:
            return None
        counts = [
            f"{state.answered} of {state.pages} pages are answered",
            f"{state.annotations} of {state.wanted} answers are there",
            f"{state.skipped} were skipped without a reason",
            f"{state.unfinished} lack a rating",
            *([f"{state.untrained} are by people who have not passed the training"] if state.untrained else []),
            *([f"{state.missing} pages are not in Label Studio (open the campaign again)"] if state.missing else []),
        ]
        faults = [*state.faults[:SHOWN_FAULTS], *(["..."] if len(state.faults) > SHOWN_FAULTS else [])]
        return "\n".join([f"Campaign {self.name} is not complete: {', '.join(counts)}. Go on at {self.url}.", *faults])

    @property
    def gate_shortfall(self) -> str | None:
        """Message that agreement is below a gate, with what to do; None if all gates are reached."""
        low = [axis for axis, gate in self.gates.items() if (alpha := self.alpha[axis]) is None or alpha < gate]
        if not low:
            return None
        shortfalls = "; ".join(
            f"{AXIS_NAMES[axis]}: {_alpha_text(self.alpha[axis])}, gate {self.gates[axis]:.2f}" for axis in low
        )
        return (
            f"Campaign {self.name} is below its gate on agreement ({shortfalls}). {self.conflicts} tasks are in "
            "conflict.\n"
            f'`editloop campaign report "{self.name}" --out DIR` shows who disagrees about what; `editloop campaign '
            f'adjudicate "{self.name}"` lets the lead decide the conflicts; answers can still be changed in Label '
            f'Studio; `editloop campaign close "{self.name}" --accept REASON` closes it as it is.'
        )


def readiness(
    settings: ServiceSettings, record: CampaignRecord, pages: Mapping[str, Page], live: Snapshot
) -> Readiness:
    """Return whether a campaign can close, and what is missing. Label Studio's own counters are set right on the way.

    Args:
        settings: Address and token of Label Studio.
        record: The campaign's record.
        pages: The campaign's pages by key.
        live: Its answers.
    """
    campaign = record.campaign
    repair_counters(settings, record, pages, live)
    judgements, _ = extract_judgements(pages, live.answers)
    table = judgement_table(judgements)
    return Readiness(
        name=campaign.name,
        url=campaign.url,
        progress=progress(record, pages, live.answers),
        answers_sha256=live.sha256,
        config_faults=config_faults(settings, campaign),
        agreement={axis: agreement(table, axis) for axis in AXES},
        gates=campaign.gates,
        conflicts=len(conflicts(judgements)),
    )


def config_faults(settings: ServiceSettings, campaign: Campaign) -> list[str]:
    """Return how the labelling config differs from the one that the campaign opened with.

    Args:
        settings: Address and token of Label Studio.
        campaign: The campaign.

    Returns:
        One sentence per difference; empty without a change.
    """
    live = read_project(LabelStudioApi(settings), campaign.project_id, campaign.name)["label_config"]
    if config_sha256(live) == campaign.config_sha256:
        return []
    return [
        f"The labelling config of {campaign.url} was changed in Label Studio, so answers may mean something else: "
        "restore it there, or open the campaign again, which does.",
        *check_config(live, campaign.places),
    ]


def close_campaign(
    record: CampaignRecord, ready: Readiness, live: Snapshot, accepted: Acceptance | None = None, *, by: str
) -> Closing:
    """Close a campaign with its present answers. Closing again with the same answers changes nothing.

    Args:
        record: The campaign's record, which gets the closing and a copy of the answers.
        ready: The campaign's state, as `readiness` returns it.
        live: The answers that `ready` is of.
        accepted: Reason to close below a gate. It is stored only if a gate is not reached.
        by: Who closes it.

    Returns:
        The closing; the existing one if the last closing has the same answers.

    Raises:
        EditLoopError: The campaign was cancelled, answers are missing, the labelling config was changed, or a gate is
            not reached and that is not accepted.
    """
    if record.cancelled:
        raise EditLoopError(cancellation_text(record))
    if obstacle := ready.closing_obstacle or (None if accepted else ready.gate_shortfall):
        raise EditLoopError(obstacle)
    if record.closings and record.closings[-1].answers_sha256 == ready.answers_sha256:
        return record.closings[-1]
    campaign, at = record.campaign, now().replace(microsecond=0)
    closing = Closing(
        answers_sha256=ready.answers_sha256,
        config_sha256=campaign.config_sha256,
        at=at,
        alpha=ready.alpha,
        by=by,
        accepted=accepted if ready.gate_shortfall else None,
    )
    keep_trained(record, live.training)
    keep_answers(campaign.key, live.kept_answers(), live.sha256)
    digests = {DIGESTS: json.dumps(live.digests, sort_keys=True).encode()}
    append_event(Closed(key=campaign.key, at=at, by=by, closing=closing), campaign.name, digests)
    return closing


def closed_digests(record: CampaignRecord) -> dict[int, str]:
    """Return the content addresses of the answers of the last closing, by annotation id.

    Args:
        record: The campaign's record, with a closing at least.

    Raises:
        EditLoopError: The addresses in MLflow are not those of the closing.
    """
    run_id = record.closing_runs[-1]
    digests = parse_digests(read_file(run_id, DIGESTS))
    if answers_sha256(digests) != record.closings[-1].answers_sha256:
        raise EditLoopError(f"{DIGESTS} of MLflow's run {run_id} is not what the campaign was closed with.")
    return digests


def parse_digests(content: bytes | str) -> dict[int, str]:
    """Return content addresses by annotation id; empty where a file is none of DIGESTS.

    Args:
        content: Of the file.
    """
    try:
        return {int(annotation): str(digest) for annotation, digest in json.loads(content).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}


def cancellation_text(record: CampaignRecord) -> str:
    """Return that a campaign was cancelled, by whom and why.

    Args:
        record: The record of a cancelled campaign.
    """
    cancelled, name = record.cancelled, record.campaign.name
    assert cancelled
    return f"Campaign {name} was cancelled on {cancelled.at:%Y-%m-%d} by {cancelled.by}: {cancelled.reason}"


def closing_of(history: Sequence[Closing], sha256: str) -> Closing | None:
    """Return the latest closing with these answers; None if there is none.

    Args:
        history: Closings, oldest first.
        sha256: Content address of the answers.
    """
    return next((closing for closing in reversed(history) if closing.answers_sha256 == sha256), None)


def _alpha_text(alpha: float | None) -> str:
    return "alpha is undefined" if alpha is None else f"alpha {alpha:.2f}"

"""Close a campaign: record the content address of its answers once they are complete and reach the agreement gates.

Closings are stored in a line of the Label Studio project's description, so that everybody who sees the campaign sees
them. Answers that are edited later no longer match the last closing; closing again acknowledges the edits.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from annotation.campaigns.answers import CampaignAnswers, CampaignProgress, extract_judgements, progress
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.counters import repair_counters
from annotation.campaigns.labelling import check_config, config_sha256
from annotation.campaigns.lead_queue import Snapshot, snapshot
from annotation.campaigns.training import campaign_answers
from annotation.quality.conflicts import conflicts
from editloop.content import canonical_json
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.statistics.agreement import agreement
from editloop.statistics.judgement_table import judgement_table
from infra.settings import ServiceSettings

CLOSINGS = "editloop-closings: "
"""Prefix of the line in a project's description that holds the closings as JSON."""
WRITE_TRIES = 5
SHOWN_FAULTS = 5


class Acceptance(Record):
    """Reason why a campaign closes below a gate, and who gave it."""

    reason: str = Field(min_length=1)
    by: str = Field(min_length=1)


class Closing(Record):
    """Record of one closing of a campaign."""

    answers_sha256: str
    """Content address of all votes and of the lead's decisions."""
    config_sha256: str
    at: datetime
    alpha: dict[Axis, float | None]
    """Krippendorff's alpha at the closing, by axis; None where it is undefined."""
    accepted: Acceptance | None = None
    """Set only if a gate was not reached."""


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
    client: Any,
    settings: ServiceSettings,
    campaign: Campaign,
    pages: Mapping[str, Page],
    exported: Snapshot | None = None,
    answers: CampaignAnswers | None = None,
) -> Readiness:
    """Return whether a campaign can close, and what is missing. Label Studio's own counters are set right on the way.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        settings: Address and token of Label Studio.
        campaign: The campaign.
        pages: The campaign's pages by key.
        exported: An export of the campaign; None to export it now.
        answers: The answers in `exported`; None to read them.
    """
    exported = exported or snapshot(client, settings, campaign)
    repair_counters(settings, campaign, pages, exported.votes)
    answers = answers or campaign_answers(client, settings, campaign, pages, exported.votes)
    judgements, _ = extract_judgements(pages, answers)
    table = judgement_table(judgements)
    return Readiness(
        name=campaign.name,
        url=campaign.url,
        progress=progress(campaign, pages, answers),
        answers_sha256=exported.sha256,
        config_faults=config_faults(client, campaign),
        agreement={axis: agreement(table, axis) for axis in AXES},
        gates=campaign.gates,
        conflicts=len(conflicts(judgements)),
    )


def config_faults(client: Any, campaign: Campaign) -> list[str]:
    """Return how the labelling config differs from the one that the campaign opened with.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        campaign: The campaign.

    Returns:
        One sentence per difference; empty without a change.
    """
    live = client.projects.get(campaign.project_id).label_config
    if config_sha256(live) == campaign.config_sha256:
        return []
    return [
        f"The labelling config of {campaign.url} was changed in Label Studio, so answers may mean something else: "
        "restore it there, or open a campaign of another name.",
        *check_config(live, campaign.places),
    ]


def closings(client: Any, campaign: Campaign) -> list[Closing]:
    """Return the campaign's closings, oldest first.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        campaign: The campaign.
    """
    return _read_closings(client.projects.get(campaign.project_id).description or "")


def close_campaign(client: Any, campaign: Campaign, ready: Readiness, accepted: Acceptance | None = None) -> Closing:
    """Close a campaign with its present answers. Closing again with the same answers changes nothing.

    Args:
        client: A LabelStudio client of the account that owns the campaigns.
        campaign: The campaign.
        ready: The campaign's state, as `readiness` returns it.
        accepted: Reason to close below a gate. It is stored only if a gate is not reached.

    Returns:
        The closing; the existing one if the last closing has the same answers.

    Raises:
        EditLoopError: Answers are missing, the labelling config was changed, a gate is not reached and that is not
            accepted, or Label Studio does not store the closing.
    """
    if obstacle := ready.closing_obstacle or (None if accepted else ready.gate_shortfall):
        raise EditLoopError(obstacle)
    closing = Closing(
        answers_sha256=ready.answers_sha256,
        config_sha256=campaign.config_sha256,
        at=datetime.now(UTC).replace(microsecond=0),
        alpha=ready.alpha,
        accepted=accepted if ready.gate_shortfall else None,
    )
    for _ in range(WRITE_TRIES):
        description = client.projects.get(campaign.project_id).description or ""
        history = _read_closings(description)
        if history and history[-1].answers_sha256 == closing.answers_sha256:
            return history[-1]
        client.projects.update(campaign.project_id, description=_with_closings(description, [*history, closing]))
        # Another process may write at the same time: read back, and try again if its line replaced ours.
        if closing in closings(client, campaign):
            return closing
    raise EditLoopError(f"{campaign.url}: Label Studio does not keep the closing in the project's description.")


def closing_of(history: list[Closing], answers_sha256: str) -> Closing | None:
    """Return the latest closing with these answers; None if there is none.

    Args:
        history: Closings, oldest first.
        answers_sha256: Content address of the answers.
    """
    return next((closing for closing in reversed(history) if closing.answers_sha256 == answers_sha256), None)


def _read_closings(description: str) -> list[Closing]:
    lines = [line.removeprefix(CLOSINGS) for line in description.splitlines() if line.startswith(CLOSINGS)]
    return [Closing.model_validate(fields) for fields in json.loads(lines[0])] if lines else []


def _with_closings(description: str, history: list[Closing]) -> str:
    other_lines = [line for line in description.splitlines() if not line.startswith(CLOSINGS)]
    encoded = canonical_json([closing.model_dump(mode="json") for closing in history]).decode()
    return "\n".join([*other_lines, f"{CLOSINGS}{encoded}"])


def _alpha_text(alpha: float | None) -> str:
    return "alpha is undefined" if alpha is None else f"alpha {alpha:.2f}"

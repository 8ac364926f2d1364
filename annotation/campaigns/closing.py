"""Closing a campaign: its answers are fixed by their content address, if they are all there and agree well enough.

Closings are kept in the Label Studio project itself, a line of its description, so that whoever sees the campaign sees
them too. Answers that are edited later do not fit the last closing any more; closing again acknowledges them.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import Field

from annotation.campaigns.accounts import names_by_id
from annotation.campaigns.answers import CampaignProgress, extract_judgements, progress, read_answers
from annotation.campaigns.campaign import Campaign
from annotation.campaigns.labelling import check_config, config_sha256
from annotation.campaigns.lead_queue import Snapshot, snapshot
from annotation.quality.conflicts import conflicts
from editloop.content import canonical_json
from editloop.data.vocabulary import AXES, AXIS_NAMES, Axis, Page, Record
from editloop.errors import EditLoopError
from editloop.statistics.agreement import agreement
from infra.settings import ServiceSettings

CLOSINGS = "editloop-closings: "
"""Starts the line of a project's description that holds the closings as JSON."""
WRITE_TRIES = 5
SHOWN_FAULTS = 5


class Acceptance(Record):
    """Why a campaign closes below its gate, and who says so."""

    reason: str = Field(min_length=1)
    by: str = Field(min_length=1)


class Closing(Record):
    """A campaign's answers as they were when it closed."""

    answers_sha256: str
    """Of all votes and of the lead's decisions."""
    config_sha256: str
    at: datetime
    alpha: dict[Axis, float | None]
    accepted: Acceptance | None = None


class Readiness(Record):
    """Whether a campaign can close, and what stands against it."""

    name: str
    url: str
    progress: CampaignProgress
    answers_sha256: str
    config_faults: list[str]
    """What of the page is not as it was when the campaign opened."""
    agreement: dict[Axis, dict[str, Any]]
    gates: dict[Axis, float]
    conflicts: int
    """Tasks that annotators disagree on."""

    @property
    def alpha(self) -> dict[Axis, float | None]:
        return {axis: figures["alpha"] for axis, figures in self.agreement.items()}

    @property
    def closing_obstacle(self) -> str | None:
        """Why the campaign cannot close whatever is accepted: the page was changed, or answers are missing."""
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
            *([f"{state.missing} pages are not in Label Studio (open the campaign again)"] if state.missing else []),
        ]
        faults = [*state.faults[:SHOWN_FAULTS], *(["..."] if len(state.faults) > SHOWN_FAULTS else [])]
        return "\n".join([f"Campaign {self.name} is not complete: {', '.join(counts)}. Go on at {self.url}.", *faults])

    @property
    def gate_shortfall(self) -> str | None:
        """How far agreement is below its gates, and what to do; None where all hold."""
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
) -> Readiness:
    """How far the campaign is from closing; `said` is what Label Studio has of it now."""
    exported = exported or snapshot(client, settings, campaign)
    answers = read_answers(exported.votes, pages, names_by_id(client, campaign.annotators))
    judgements, _ = extract_judgements(pages, answers)
    return Readiness(
        name=campaign.name,
        url=campaign.url,
        progress=progress(campaign, pages, answers),
        answers_sha256=exported.sha256,
        config_faults=config_faults(client, campaign),
        agreement={axis: agreement(judgements, axis) for axis in AXES},
        gates=campaign.gates,
        conflicts=len(conflicts(judgements)),
    )


def config_faults(client: Any, campaign: Campaign) -> list[str]:
    """What of the labelling config is not as it was when the campaign opened; [] = nothing."""
    live = client.projects.get(campaign.project_id).label_config
    if config_sha256(live) == campaign.config_sha256:
        return []
    return [
        f"The labelling config of {campaign.url} was changed in Label Studio, so answers may mean something else: "
        "restore it there, or open a campaign of another name.",
        *check_config(live, campaign.places),
    ]


def closings(client: Any, campaign: Campaign) -> list[Closing]:
    """The campaign's closings, oldest first."""
    return _read_closings(client.projects.get(campaign.project_id).description or "")


def close_campaign(client: Any, campaign: Campaign, ready: Readiness, accepted: Acceptance | None = None) -> Closing:
    """Close the campaign with the answers that it has; closing again with the same answers changes nothing.

    Raises EditLoopError where answers are missing or the labelling config was changed, and below the gates unless it is
    `accepted`. The reason is kept where it was needed.
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
        # Another process may write at the same moment: read back, and try again where its line took the place of ours.
        if closing in closings(client, campaign):
            return closing
    raise EditLoopError(f"{campaign.url}: Label Studio does not keep the closing in the project's description.")


def closing_of(history: list[Closing], answers_sha256: str) -> Closing | None:
    """The latest closing with these answers."""
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

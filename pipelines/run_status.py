"""Where a piece of work stands that a pipeline does."""

from dataclasses import dataclass
from typing import Literal

RunState = Literal["due", "started", "running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class RunStatus:
    """Where a piece of work stands."""

    key: str
    state: RunState
    """`due`: left to people. `started`: by this call. `stopped`: a person terminated it; nothing starts it again
    unasked."""
    address: str = ""
    """Page of the run in KFP's UI; empty for a run on this machine, and while another caller submits it."""
    detail: str = ""
    """What failed, and what follows; or how to start it."""
    run_id: str = ""
    """KFP's id of the run; empty where there is no address."""

    def __str__(self) -> str:
        return "  ".join(part for part in (f"{self.state:<8} {self.key}", self.detail, self.address) if part)

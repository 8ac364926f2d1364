"""Reader of gate.json, which a run, a bucket or a folder of somebody else may hand over."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, StrictStr

from editloop.content import RESTORE
from editloop.json_file import read_json_record

Verdict = Literal["promote", "hold", "reject"]


class _Content(BaseModel):
    """What EditLoop wrote; figures that nobody reads again are kept as they are."""

    model_config = ConfigDict(extra="allow", strict=True)


class GateSuite(_Content):
    """A suite that a gate decided on."""

    suite: StrictStr
    sha256: StrictStr
    units: int


class GateData(_Content):
    """What a gate decided on."""

    dataset_sha256: StrictStr
    suites: list[GateSuite]


class GateOpinion(_Content):
    """The verdict of an independent judge."""

    judge: StrictStr
    verdict: Verdict
    counts: bool


class GateDecision(_Content):
    """Content of gate.json, as `decide` returns it and a benchmark or an evaluation completes it."""

    verdict: Verdict
    reasons: list[StrictStr]
    gate: StrictStr = "unnamed"
    against: StrictStr = ""
    data: GateData | None = None
    independent: list[GateOpinion] = []


def read_decision(path: Path) -> dict[str, Any]:
    """Return the content of a gate.json.

    Args:
        path: The file.

    Raises:
        EditLoopError: The file cannot be read, or holds no gate's decision.
    """
    return read_json_record(path, GateDecision, RESTORE).model_dump(mode="json", exclude_unset=True)

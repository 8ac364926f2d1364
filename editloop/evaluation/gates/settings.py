"""What a gate asks before it lets a model through: one YAML file, shipped or a team's own."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from editloop.evaluation.suites.names import suite_names
from editloop.settings_file import find_preset, read_settings

PRESETS = Path(__file__).parent / "presets"
DATASET_SUITES = ("heldout", "scenes")
"""Suites that are read from the dataset the model learnt from, where no other is named."""


class _StrictModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SuiteGate(_StrictModel):
    """One suite that the new model must pass against the old one."""

    suite: str
    data: str = ""
    """Folder of the suite; empty: the dataset of the training (heldout and scenes only)."""
    margin: float = Field(0.0, ge=0)
    """How much lower the new model's figure may be, in shares; 0 asks it to be better."""
    minimum: int = Field(50, ge=1)
    """Units; a suite with fewer decides nothing."""
    required: bool = True
    """False: measured and shown, without a say."""

    @field_validator("suite")
    @classmethod
    def _known(cls, suite: str) -> str:
        if suite not in suite_names():
            raise ValueError(f"no suite {suite}; there are {', '.join(suite_names())}")
        return suite


class Slices(_StrictModel):
    """Kinds of task that must not regress, whatever the whole gains."""

    margin: float = Field(0.05, ge=0)
    """How much a slice may lose, in shares; that one lost more must be shown before it counts."""
    minimum: int = Field(20, ge=1)
    """Units; smaller slices are shown, and decide nothing."""
    names: tuple[str, ...] = ()
    """The slices that count; empty for all of them."""


class IndependentJudge(_StrictModel):
    """A judge of the editor's edits that did not train it."""

    judge: str
    """A reward model's address (as `editloop score --model`), or verdicts:FILE of people (JSON lines: key, verdict;
    left is the base's edit, right the new one's)."""
    agree: Literal["better", "not-worse"] = "not-worse"
    """better: its preference for the new editor must be clear of 0. not-worse: it must not lie below -margin."""
    margin: float = Field(0.05, ge=0)
    """Net preferences (wins less losses, in shares of the tasks) that may be lost, with not-worse."""
    minimum: int = Field(50, ge=1)
    """Tasks on which the judge must have spoken."""
    tasks: int = Field(200, ge=1)
    """Held-out tasks that it is shown, the first ones."""


class GateSettings(_StrictModel):
    """A gate."""

    name: str
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Intervals are two-sided, of level 1 - alpha: a model that is no better is promoted in alpha / 2 of all cases."""
    resamples: int = Field(10_000, ge=1000)
    most_missing: float = Field(0.1, ge=0, le=1)
    """Largest share of units that the new model may leave without an answer."""
    suites: tuple[SuiteGate, ...] = ()
    """Of reward models: all required ones must be passed."""
    right_edits: SuiteGate | None = None
    """Of editors, where right results are known: the oracle's share of right edits. Its `suite` is scenes."""
    independent: tuple[IndependentJudge, ...] = ()
    """Of editors: who else must agree. Without right_edits one is needed."""
    slices: Slices = Slices()

    always: bool = False
    """Let everything through: for checks that the parts of a loop work together, never for a model in use."""

    @field_validator("suites")
    @classmethod
    def _decidable(cls, suites: tuple[SuiteGate, ...]) -> tuple[SuiteGate, ...]:
        names = [gate.suite for gate in suites]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} comes twice; a gate asks a suite once")
        if "imagenhub" in (gate.suite for gate in suites if gate.required):
            raise ValueError("imagenhub has correlations and no units to pair; give it required: false, to be shown")
        return suites


def read_gate(gate: str) -> GateSettings:
    """Read a gate.

    Args:
        gate: The name of a shipped gate, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such gate, or it is not valid.
    """
    return read_settings(GateSettings, find_preset(gate, PRESETS, "gate"), "gate")

"""Settings of a gate: what a model must pass to be promoted. One YAML file, shipped or a team's own."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from editloop.evaluation.editor_suites.names import EDITOR_SUITE_NAMES
from editloop.evaluation.suites.names import suite_names
from editloop.settings_file import FrozenModel, find_preset, read_settings

PRESETS = Path(__file__).parent / "presets"
"""Folder of the shipped gates."""
DATASET_SUITES = ("heldout", "scenes")
"""Suites read from the dataset that the model was trained on, unless `data` names another folder."""


class SuiteGate(FrozenModel):
    """One suite on which the new model is compared with the old one."""

    suite: str
    data: str = ""
    """Folder of the suite; empty for the training's dataset (heldout and scenes only)."""
    margin: float = Field(0.0, ge=0)
    """How much lower the new model's share of right units may be; with 0 it must be better."""
    minimum: int = Field(50, ge=1)
    """Units needed for a decision; with fewer the verdict is hold."""
    required: bool = True
    """False: the suite is measured and shown, but does not decide."""

    @field_validator("suite")
    @classmethod
    def _known(cls, suite: str) -> str:
        if suite not in suite_names():
            raise ValueError(f"no suite {suite}; there are {', '.join(suite_names())}")
        return suite


class EditorBenchmark(SuiteGate):
    """One public benchmark of editors on which the new editor is compared with the old one, by a judge's reward.

    `margin` is in the unit of the reward, 0..1.
    """

    judge: str
    """The judge's address (as for `editloop score --model`)."""

    @field_validator("suite")
    @classmethod
    def _known(cls, suite: str) -> str:
        if suite not in EDITOR_SUITE_NAMES:
            raise ValueError(f"no benchmark of editors {suite}; there are {', '.join(EDITOR_SUITE_NAMES)}")
        return suite

    @field_validator("data")
    @classmethod
    def _named(cls, data: str) -> str:
        if not data:
            raise ValueError("no folder; name the benchmark's")
        return data


class Slices(FrozenModel):
    """Kinds of task on which the new model must not regress, whatever the suite as a whole gains."""

    margin: float = Field(0.05, ge=0)
    """How much lower the share of right units of a slice may be; a larger loss counts if it is significant."""
    minimum: int = Field(20, ge=1)
    """Units needed for a decision; smaller slices are only shown."""
    names: tuple[str, ...] = ()
    """The slices that count; empty for all."""


class WithinEditorGate(FrozenModel):
    """How well a reward model must order one editor's own samples of a task: what online RL compares."""

    least: float = Field(ge=-1, lt=1)
    """The interval of the mean rank correlation with the experts' ratings must lie above it."""
    minimum: int = Field(30, ge=1)
    """Groups (a task and an editor with three edits or more) needed for a decision; with fewer the verdict is hold."""


class BaselineGate(FrozenModel):
    """The untrained vision-language model that every reward model is compared with on the held-out pairs."""

    base: str = ""
    """Its checkpoint's folder; empty for the one with which the model's line of trainings began."""
    least_gain: float | None = Field(None, ge=-1, lt=1)
    """The interval of the gain over it, in share of right units, must lie above this; null: shown only."""
    minimum: int = Field(50, ge=1)
    """Units needed for a decision; with fewer the verdict is hold."""


class IndependentJudge(FrozenModel):
    """A judge of the editor's edits that did not train it."""

    judge: str
    """A reward model's address (as for `editloop score --model`), or verdicts:FILE with people's verdicts (JSON lines:
    key, verdict; left is the base editor's edit, right the new editor's)."""
    agree: Literal["better", "not-worse"] = "not-worse"
    """better: the interval of its preference for the new editor must lie above 0. not-worse: the interval must lie
    above -margin."""
    margin: float = Field(0.05, ge=0)
    """With not-worse: the net preference (wins minus losses, as a share of the tasks) that may be lost."""
    minimum: int = Field(50, ge=1)
    """Tasks that the judge must have answered."""
    tasks: int = Field(200, ge=1)
    """Number of held-out tasks to show it, the first ones; people's verdicts ignore it."""


class GateSettings(FrozenModel):
    """The rules of a gate."""

    name: str
    alpha: float = Field(0.05, gt=0, lt=0.5)
    """Intervals are two-sided, of level 1 - alpha: a model that is no better is promoted in alpha / 2 of all cases."""
    resamples: int = Field(10_000, ge=1000)
    """Resamples of the bootstrap."""
    most_missing: float = Field(0.1, ge=0, le=1)
    """Largest share of units that the new model may leave without an answer."""
    suites: tuple[SuiteGate, ...] = ()
    """For reward models: the suites; every required one must be passed."""
    within_editor: WithinEditorGate | None = None
    """For reward models: what is asked of the order among one editor's samples of a held-out task; null: shown only."""
    baseline: BaselineGate = BaselineGate()
    """For reward models: the untrained model that is shown beside, and the gain over it that is asked."""
    right_edits: SuiteGate | None = None
    """For editors whose tasks have known right results: the oracle's share of right edits. Its `suite` is scenes."""
    independent: tuple[IndependentJudge, ...] = ()
    """For editors: the other judges that must agree. Without `right_edits` at least one is needed."""
    benchmarks: tuple[EditorBenchmark, ...] = ()
    """For editors: public benchmarks, each with its judge; every required one must be passed."""
    slices: Slices = Slices()
    """Rules for slices."""

    always: bool = False
    """Promote everything: for checks that the parts of a loop work together, never for a model in use."""

    @field_validator("benchmarks")
    @classmethod
    def _differ(cls, benchmarks: tuple[EditorBenchmark, ...]) -> tuple[EditorBenchmark, ...]:
        names = [benchmark.suite for benchmark in benchmarks]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"{', '.join(repeated)} comes twice; a gate asks a benchmark once")
        return benchmarks

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

    Examples:
        >>> import editloop
        >>> gate = editloop.read_gate("reward")
        >>> gate.alpha, [suite.suite for suite in gate.suites]
        (0.05, ['heldout', 'scenes'])
    """
    return read_settings(GateSettings, find_preset(gate, PRESETS, "gate"), "gate")

"""Settings and job file of an editor's online RL training. Imports no torch."""

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from editloop.models.lora_settings import LoraSettings, check_editor_adapter
from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.editor_rl.algorithm_settings import AnyAlgorithmSettings, NftSettings
from editloop.training.editor_rl.guards import StopSettings
from editloop.training.editor_settings import EditorTrainingSettings
from editloop.training.job import JobFile
from editloop.training.settings import RunSettings

PRESETS = Path(__file__).with_name("presets")
"""Those that ship."""


class RlSettings(RunSettings, EditorTrainingSettings):
    """Settings of one online RL training.

    An iteration samples several edits of a few tasks, scores them, and moves the editor towards the better edits of
    each task's group.
    """

    SAME_RESULT: ClassVar[frozenset[str]] = RunSettings.SAME_RESULT | {
        "compile",
        "encoders",
        "encodings_gb",
        "iterations",
        "judge_patience",
        "most_missing",
        "missing_over",
    }

    iterations: int = Field(200, ge=1)
    tasks: int = Field(16, ge=1)
    """Tasks per iteration, over all ranks."""
    members: int = 8
    """Edits per task: the group that each edit is compared with."""
    best_members: int = Field(0, ge=0)
    """Train only on this many members of each group, those with the largest absolute advantages; 0: on all."""
    micro_batch: int = Field(128, ge=1)
    """Edits that go through the network at a time, in sampling and in training. Bounds the memory."""
    chunks: int = Field(2, ge=1)
    """Parts in which a rank samples its tasks. One is scored while the next is sampled."""

    forward_batch: int | None = Field(None, ge=2)
    """Edits of a published trainer's batch. The iteration's edits are put into such batches at random; a batch's loss
    is the mean over its trained edits, each batch counts alike, and steps that are drawn are drawn for a whole batch.
    null: every trained edit counts alike, and has steps of its own. Not bound to `micro_batch`."""
    optimiser_steps: int | None = Field(None, ge=1)
    """Optimiser steps of an iteration, each on as large a random part of its edits, with the gradients of all of an
    edit's levels added up. null: one for each level, on all edits."""

    sampling_steps: int = Field(8, ge=1)
    sigma_shift: float = Field(1.0, gt=0)
    """Shift k of the rollouts' noise levels on top of the editor's own: k sigma / (1 + (k - 1) sigma). Evaluations have
    the editor's own alone."""
    evaluation_steps: int | None = Field(None, ge=1)
    """Sampling steps of evaluations; null: as many as in training."""
    guidance: float | None = Field(None, ge=1)
    """Guidance in sampling and training, in the editor's own kind; null: what the editor's settings say."""

    algorithm: AnyAlgorithmSettings = Field(NftSettings(), discriminator="name")
    """The algorithm and its own settings. Its `name` chooses: `nft` or `flow-grpo`."""
    kl: float = Field(0.2, ge=0)
    """Weight of the distance to the base editor in the loss.

    NFT drifted at 0.01: after 200 iterations the reward had risen by 15 % and recolouring by 8 points, but backgrounds,
    where the reward model knows least, had fallen by 6.
    """

    advantage_scale: Literal["group", "batch", "pooled"] = "pooled"
    """Standard deviation that divides an advantage: its group's own, that of all rewards of the iteration, or the
    pooled one within groups."""
    advantage_epsilon: float = Field(0.0, ge=0, lt=1)
    """Added to that standard deviation, as published code does. 0: nothing is, but one below 1e-4 counts as 1e-4."""
    group_by: Literal["task", "instruction"] = "task"
    """What makes a group: one task, or all tasks of an iteration with one instruction, as in Edit-R1's code."""
    train_silent: bool = False
    """Train on edits of groups whose rewards have no spread, too. Their advantage is 0: they hold the policy back."""
    combination: Literal["normalised", "raw"] = "normalised"
    """How several rewards are combined: their advantages are added by weight, or the rewards themselves are."""
    most_missing: float = Field(0.5, ge=0, lt=1)
    """Stop where a larger share of the rewards of the last `missing_over` iterations is missing."""
    missing_over: int = Field(5, ge=1)
    judge_patience: float = Field(600.0, ge=0)
    """Seconds to wait for an unavailable judge. Then the state is saved and the training ends."""
    solved_spread: float = Field(0.0, ge=0)
    """A task is solved and leaves the pool when its rewards (of the first judge) have a standard deviation below this
    and a mean above `solved_mean`. 0: no task is. Edit-R1 uses 0.05."""
    solved_mean: float = Field(0.9, ge=0, le=1)
    mask_solved: bool = False
    """Train only on groups with a standard deviation above `solved_spread` and a mean below `solved_mean`."""

    adapter: LoraSettings | None = LoraSettings(rank=32, alpha=64)
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decays of its moving averages of the gradient and of its square."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Precision of multiplications in the network. Trained weights, sampling steps and losses are fp32. auto: bf16
    where the machine has instructions for it (there 1.8 times as fast). Frozen weights are bf16 with `bf16`, and with
    `auto` on a GPU."""
    compile: bool = False
    """Compile the network's blocks with torch.compile. It takes minutes at the start and a compiler on the machine, so
    that it pays in a long training of a large network."""
    zero_stage: Literal[0, 1, 2] = 2
    """What DeepSpeed's ZeRO spreads over the ranks: 1 optimiser states, 2 also gradients."""
    ema_decay: float = Field(0.95, ge=0, lt=1)
    """Decay of the moving average of the trained weights; lower at first. The average is what is evaluated and kept. 0:
    the trained weights themselves are."""
    ema_every: int | None = Field(None, ge=1)
    """Optimiser steps between two updates of the average; null: it is updated after each iteration."""

    evaluate_every: int = Field(25, ge=1)
    """Iterations between two evaluations."""
    evaluation_tasks: int = Field(64, ge=1)
    """Held-out tasks that an evaluation uses."""
    stop: StopSettings = StopSettings()
    """Conditions that end the training before its last iteration."""
    checkpoint_every: int = Field(25, ge=1)
    """Iterations between two checkpoints."""
    seed: int = 0
    """Seed of the choice of tasks, of all noise and of new weights."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.members < 2:
            raise ValueError(f"members is {self.members}: a group of one has no order; use 2 or more")
        if self.best_members > self.members:
            raise ValueError(
                f"best_members {self.best_members} is above members {self.members}: at most the whole group is trained "
                "on"
            )
        if self.best_members == 1:
            raise ValueError("best_members is 1: one edit has nothing to be better than; take 2 or more, or 0 for all")
        if self.mask_solved and not self.solved_spread:
            raise ValueError("mask_solved without solved_spread: give the spread above which a group is trained on")
        if min(self.betas) < 0 or max(self.betas) >= 1:
            raise ValueError(f"betas {self.betas}: each from 0 to below 1")
        if self.algorithm.draws_levels and self.optimiser_steps is None:
            raise ValueError(
                "algorithm.trained_kind random without optimiser_steps: each step of the trajectory would be an "
                "optimiser step on other edits; give their number"
            )
        check_editor_adapter(self.adapter, self.targets)
        self.algorithm.check_steps(self.sampling_steps)
        return self


class RlJob(JobFile):
    """Job file of an online RL training, which its ranks read. `output` gets `editor/` and `training.json`."""

    edits: Path
    """Edits folder with the tasks to practise."""
    held_out: Path | None = None
    """Edits folder with the tasks for evaluations; null: some tasks of `edits` are set aside."""
    editor: str
    """Editor that the training starts from: a pipeline's folder, or the name of a shipped editor."""
    rewards: dict[str, float]
    """Weight of each judge whose scores are the reward, by address. `oracle` is the control where all targets are
    known."""
    watch: list[str] = Field(default_factory=list)
    """Addresses of watching judges: evaluations use them, but the editor does not learn from them. `oracle` needs
    targets."""
    settings: RlSettings
    facts: dict[str, Any] = Field(default_factory=dict)
    """What the editor is trained on: digests of the base, the reward models and the tasks. Other facts are another
    training."""

    @model_validator(mode="after")
    def _taught(self) -> Self:
        if not self.rewards or any(weight <= 0 for weight in self.rewards.values()):
            raise ValueError(f"rewards {self.rewards}: at least one judge, each with a weight above 0")
        if overlap := set(self.rewards) & set(self.watch):
            raise ValueError(f"watch {', '.join(sorted(overlap))}: a judge that teaches cannot watch itself")
        return self


def rl_preset_names() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    return preset_names(PRESETS)


def read_rl_preset(name: str, **overrides: Any) -> RlSettings:
    """Read a preset of online RL.

    Args:
        name: The name of a shipped preset, or the path of a YAML file.
        **overrides: Settings that take the place of the preset's.

    Raises:
        EditLoopError: There is no such preset, or the settings are not valid.
    """
    return read_settings(RlSettings, find_preset(name, PRESETS, "preset"), "preset", **overrides)

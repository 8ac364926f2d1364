"""Settings and job file of an editor's online RL training. Imports no torch."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.editor_rl.guards import StopSettings
from editloop.training.job import JobFile

PRESETS = Path(str(files("editloop.training.editor_rl"))) / "presets"
"""Those that ship."""


class RlSettings(BaseModel):
    """Settings of one online RL training.

    An iteration samples several edits of a few tasks, scores them, and moves the editor towards the better edits of
    each task's group.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(200, ge=1)
    tasks: int = Field(16, ge=1)
    """Tasks per iteration, over all ranks."""
    members: int = 8
    """Edits per task: the group that each edit is compared with."""
    keep: int = Field(0, ge=0)
    """Train only on this many members of each group, those with the largest absolute advantages; 0: on all."""
    micro_batch: int = Field(128, ge=1)
    """Edits that go through the network at a time, in sampling and in training. Bounds the memory."""
    chunks: int = Field(2, ge=1)
    """Parts in which a rank samples its tasks. One is scored while the next is sampled."""

    steps: int = Field(8, ge=1)
    """Sampling steps."""
    guidance: float | None = Field(None, ge=1)
    """Guidance in sampling and training, in the editor's own kind; null: what the editor's settings say."""
    guidance_share: float = Field(1.0, gt=0, le=1)
    """Flow-GRPO: share of the sampling steps, from the first, that use guidance. The others use 1, which is none."""
    encodings: int = Field(4096, ge=1)
    """Tasks whose images and encodings a rank keeps in memory. A task that returns later is encoded anew."""
    shared_noise: bool = False
    """Whether the members of a group start from the same noise, so that the steps before the window are computed once.

    The members then differ little: the reward's spread on drawn scenes was 0.06, against 0.15 with separate noise.
    """
    step: Literal["flow-sde", "cps", "dance-sde"] = "flow-sde"
    """Flow-GRPO: kind of stochastic step."""
    noise: float = Field(0.7, gt=0)
    """Flow-GRPO: amount of noise in stochastic steps, a in the papers; 0..1 for cps."""
    window: int = Field(2, ge=1)
    """Flow-GRPO: number of stochastic, trained steps in each trajectory. The others are deterministic and carry no
    gradient."""
    window_kind: Literal["fixed", "random", "sliding"] = "random"
    """Position of the window: at the first step, drawn anew in each iteration, or sliding along the steps."""
    window_range: int = Field(4, ge=1)
    """The window lies within this many first steps."""
    storage: Literal["fp32", "bf16"] = "fp32"
    """Flow-GRPO: type in which a trajectory's latents are stored. Log-probabilities are of the stored values."""

    scale: Literal["group", "batch", "pooled"] = "pooled"
    """Standard deviation that divides an advantage: its group's own, that of all rewards of the iteration, or the
    pooled one within groups."""
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

    algorithm: Literal["flow-grpo", "nft"] = "nft"
    """Flow-GRPO on stochastic steps, or DiffusionNFT on the forward process."""
    strength: float = Field(1.0, gt=0)
    """NFT: strength of the implicit policies, b in the paper: how far they are from the old policy."""
    largest: float = Field(1.0, gt=0)
    """NFT: the advantage at which an edit counts as good with certainty, c in the paper."""
    levels: int = Field(3, ge=1)
    """NFT: noise levels that an edit is trained at, with one optimiser step each."""
    common_noise: bool = False
    """NFT: whether the members of a group get the same noise at the same levels in the update, so that what they have
    in common cancels."""
    old_decay: float = Field(0.5, ge=0, le=1)
    """NFT: decay of the old policy's moving average after each iteration."""
    clip: tuple[float, float] = (2e-4, 2e-4)
    """Flow-GRPO: how far below and above 1 the probability ratio may be before it is clipped."""
    guard: bool = False
    """Flow-GRPO: use GRPO-Guard's ratio, whose logarithm has mean 0 at every noise level."""
    reweighting: bool = False
    """Flow-GRPO: use TempFlow-GRPO's weights, which are proportional to a step's deviation."""
    kl: float = Field(0.2, ge=0)
    """Weight of the distance to the base editor in the loss.

    NFT drifted at 0.01: after 200 iterations the reward had risen by 15 % and recolouring by 8 points, but backgrounds,
    where the reward model knows least, had fallen by 6.
    """
    kl_form: Literal["exact", "published"] = "exact"
    """Flow-GRPO: the exact KL of the steps, or what published code computes, whose deviation lacks the step's
    length."""

    train: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, or all weights of the network."""
    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    targets: tuple[str, ...] = ()
    """Endings of the names of the layers that get an adapter; empty: the editor's own choice."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters. A larger gradient is scaled down to it."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Precision of multiplications in the network. Trained weights, sampling steps and losses are fp32. auto: bf16
    where the machine has instructions for it (there 1.8 times as fast)."""
    zero_stage: Literal[0, 1, 2] = 2
    """What DeepSpeed's ZeRO spreads over the ranks: 1 optimiser states, 2 also gradients."""
    average: float = Field(0.95, ge=0, lt=1)
    """Decay of the moving average of the trained weights. The average is what is evaluated and kept."""

    evaluate_every: int = Field(25, ge=1)
    """Iterations between two evaluations."""
    evaluation_tasks: int = Field(64, ge=1)
    """Held-out tasks that an evaluation uses."""
    stop: StopSettings = StopSettings()
    """Conditions that end the training before its last iteration."""
    checkpoint_every: int = Field(25, ge=1)
    """Iterations between two checkpoints."""
    checkpoints: int = Field(2, ge=1)
    """Number of newest checkpoints to keep."""
    seed: int = 0
    """Seed of the choice of tasks, of all noise and of new weights."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.members < 2:
            raise ValueError(f"members is {self.members}: a group of one has no order; use 2 or more")
        if self.keep > self.members:
            raise ValueError(f"keep {self.keep} is above members {self.members}: at most the whole group is trained on")
        if self.keep == 1:
            raise ValueError("keep is 1: one edit has nothing to be better than; keep 2 or more, or 0 for all")
        if self.algorithm == "flow-grpo":
            if self.common_noise:
                raise ValueError("common_noise with flow-grpo, whose update draws no noise: leave it out")
            if self.window > self.steps:
                raise ValueError(f"window {self.window} is longer than the trajectory of {self.steps} steps")
            if not self.window <= self.window_range <= self.steps:
                raise ValueError(
                    f"window_range {self.window_range}: at least the window ({self.window}), at most steps "
                    f"({self.steps})"
                )
            if self.window_range == self.steps and self.step == "cps":
                raise ValueError(
                    f"window_range {self.window_range} of {self.steps} steps with cps: its last step, to sigma 0, has "
                    "no deviation; leave it out"
                )
            if self.step == "cps" and self.noise > 1:
                raise ValueError(f"noise {self.noise} with cps: at most 1")
        elif self.shared_noise:
            raise ValueError("shared_noise with nft: its steps are deterministic, so all members would be one edit")
        elif self.guidance_share < 1:
            raise ValueError(
                f"guidance_share {self.guidance_share} with nft, whose losses know no steps: leave it at 1"
            )
        if min(self.clip) <= 0:
            raise ValueError(f"clip {self.clip}: both sides above 0")
        return self


SAME_RESULT = frozenset(
    {"iterations", "checkpoint_every", "checkpoints", "judge_patience", "most_missing", "missing_over", "zero_stage"}
)
"""Settings that are not part of a training's identity. Between a stopped call and the one that continues it, all but
`zero_stage` may change; checkpoints refuse another ZeRO stage."""


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

"""How an editor is improved by online RL, and what the ranks of such a job are told. Light: no torch."""

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
    """One training. An iteration edits a few tasks several times each, scores the edits, and moves the editor towards
    the better ones of each task's group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    iterations: int = Field(200, ge=1)
    tasks: int = Field(16, ge=1)
    """Tasks an iteration, over all ranks."""
    members: int = 8
    """Edits a task: the group that an edit is compared with."""
    keep: int = Field(0, ge=0)
    """Train on this many members of a group only, those whose advantages are largest in size; 0: on all."""
    micro_batch: int = Field(128, ge=1)
    """Edits that go through the network at a time, in sampling and in training: what bounds the memory."""
    chunks: int = Field(2, ge=1)
    """Parts that a rank samples its tasks in: one is scored while the next is sampled."""

    steps: int = Field(8, ge=1)
    """Sampling steps."""
    guidance: float | None = Field(None, ge=1)
    """Guidance while the editor samples and is trained, in its own kind; null: what its settings say."""
    guidance_share: float = Field(1.0, gt=0, le=1)
    """Flow-GRPO: share of the sampling steps, from the first on, that have guidance; the others have 1, none."""
    encodings: int = Field(4096, ge=1)
    """Tasks whose pictures and encodings a rank keeps in memory; one that comes again later is encoded anew."""
    shared_noise: bool = False
    """Whether the members of a group start from one noise (the steps before the window are then computed once).

    They differ little then: a spread of 0.06 of the reward against 0.15 with noise of their own on drawn scenes.
    """
    step: Literal["flow-sde", "cps", "dance-sde"] = "flow-sde"
    """Flow-GRPO: what a stochastic step is."""
    noise: float = Field(0.7, gt=0)
    """Flow-GRPO: how stochastic its steps are, a in the papers; 0..1 for cps."""
    window: int = Field(2, ge=1)
    """Flow-GRPO: stochastic, trained steps of each trajectory; the others are deterministic and carry no gradient."""
    window_kind: Literal["fixed", "random", "sliding"] = "random"
    """Where the window lies: at the first step, drawn anew each iteration, or sliding on along the steps."""
    window_range: int = Field(4, ge=1)
    """The window lies within this many first steps."""
    storage: Literal["fp32", "bf16"] = "fp32"
    """Flow-GRPO: how latents of the trajectory are kept. Log-probabilities are taken of what is kept."""

    scale: Literal["group", "batch", "pooled"] = "pooled"
    """Whose spread an advantage is measured in: its group's own, that of all rewards of the iteration, or the mean one
    within its groups."""
    combination: Literal["normalised", "raw"] = "normalised"
    """Several rewards: their advantages are added by weight, or they themselves are."""
    most_missing: float = Field(0.5, ge=0, lt=1)
    """Stop where a larger share of the last `missing_over` iterations' rewards is missing."""
    missing_over: int = Field(5, ge=1)
    judge_patience: float = Field(600.0, ge=0)
    """Seconds that a judge which is away is waited for; then the state is saved and the training ends."""
    solved_spread: float = Field(0.0, ge=0)
    """A task whose rewards (of the first judge) have a smaller deviation than this and a mean above `solved_mean` is
    solved and leaves the pool; 0: none does. Edit-R1 has 0.05."""
    solved_mean: float = Field(0.9, ge=0, le=1)

    algorithm: Literal["flow-grpo", "nft"] = "nft"
    """Flow-GRPO on stochastic steps, or DiffusionNFT on the forward process."""
    strength: float = Field(1.0, gt=0)
    """NFT: how far the implicit policies lie from the old one, b in the paper."""
    largest: float = Field(1.0, gt=0)
    """NFT: the advantage at which an edit is good for certain, c in the paper."""
    levels: int = Field(3, ge=1)
    """NFT: noise levels an edit is trained at, one optimiser step each."""
    common_noise: bool = False
    """NFT: whether the members of a group are noised alike, to the same levels with the same noise, so that what they
    have in common cancels in the update."""
    old_decay: float = Field(0.5, ge=0, le=1)
    """NFT: decay of the old policy's moving average after each iteration."""
    clip: tuple[float, float] = (2e-4, 2e-4)
    """Flow-GRPO: how far below and above 1 the ratio of probabilities may lie before it is clipped."""
    guard: bool = False
    """Flow-GRPO: GRPO-Guard's ratio, whose mean is 1 at every noise level."""
    reweighting: bool = False
    """Flow-GRPO: TempFlow's weights, by a step's deviation."""
    kl: float = Field(0.2, ge=0)
    """Weight of the distance to the base editor.

    NFT at 0.01 drifted: after 200 iterations the reward had risen by 15 % and recolouring by 8 points, but backgrounds,
    where the reward knows least, had fallen by 6.
    """
    kl_form: Literal["exact", "published"] = "exact"
    """Flow-GRPO: the divergence of the steps, or what published code computes, whose deviation lacks the step's
    length."""

    train: Literal["lora", "full"] = "lora"
    """Train a low-rank adapter, or all weights of the network."""
    rank: int = Field(32, ge=1)
    alpha: int = Field(64, ge=1)
    targets: tuple[str, ...] = ()
    """Layers that get an adapter, by the ends of their names; none: the editor's own choice."""
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    gradient_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient over all parameters; a larger one is scaled down."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Of multiplications in the network; weights that are trained, steps and losses are fp32. auto: bf16 where the
    machine has instructions for it (there 1.8 times as fast)."""
    zero_stage: Literal[0, 1, 2] = 2
    """What DeepSpeed's ZeRO spreads over the ranks: 1 the optimiser's states, 2 also gradients."""
    average: float = Field(0.95, ge=0, lt=1)
    """Decay of the moving average of the trained weights, which is what is evaluated and kept."""

    evaluate_every: int = Field(25, ge=1)
    """Iterations between two evaluations."""
    evaluation_tasks: int = Field(64, ge=1)
    stop: StopSettings = StopSettings()
    """What ends the training before its last iteration."""
    checkpoint_every: int = Field(25, ge=1)
    """Iterations between two checkpoints."""
    checkpoints: int = Field(2, ge=1)
    """Checkpoints kept; older ones go."""
    seed: int = 0
    """Of the tasks' order, of every noise and of new weights."""

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
"""Settings that may change between a stop and the call that goes on."""


class RlJob(JobFile):
    """What the ranks are told, by file; `output` gets `editor/` and `training.json`."""

    edits: Path
    """Edits folder with the tasks to practise."""
    held_out: Path | None = None
    """Edits folder with the tasks that evaluations look at; null: some of `edits` are set aside."""
    editor: str
    rewards: dict[str, float]
    """Judges that teach, by address, with their weights; `oracle` is the control of a world whose right results are
    known."""
    watch: list[str] = Field(default_factory=list)
    """Judges that do not teach, by address: those that evaluations compare with. `oracle` where it is known."""
    settings: RlSettings
    facts: dict[str, Any] = Field(default_factory=dict)
    """What it is trained on: digests of the base, the rewards and the tasks. Other facts are another training."""

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

"""Settings of each RL algorithm, one class per algorithm. Imports no torch.

`RlSettings.algorithm` is one of these classes, chosen by its `name`.
"""

from abc import abstractmethod
from typing import Literal, Self

from pydantic import Field, model_validator

from editloop.models.editors.solver_names import SolverName
from editloop.settings_file import FrozenModel
from editloop.training.editor_rl.windows import WindowKind


class AlgorithmSettings(FrozenModel):
    """What the settings of all algorithms have in common."""

    @property
    @abstractmethod
    def levels_per_edit(self) -> int:
        """Number of levels that an edit is trained at in an iteration: noise levels, or steps of its trajectory."""

    @property
    def draws_levels(self) -> bool:
        """Whether edits of one iteration are trained at different levels of the update."""
        return False

    def check_steps(self, steps: int) -> None:
        """Check that the algorithm works with this number of sampling steps.

        Args:
            steps: Number of sampling steps.

        Raises:
            ValueError: It does not.
        """


class NftSettings(AlgorithmSettings):
    """Settings of DiffusionNFT, which trains on the forward process: finished edits that are noised again."""

    name: Literal["nft"] = "nft"
    beta: float = Field(1.0, gt=0)
    """How far the implicit policies are from the old policy, b in the paper."""
    advantage_clip: float = Field(1.0, gt=0)
    """The advantage at which an edit counts as good with certainty, c in the paper."""
    levels: int = Field(3, ge=1)
    """Noise levels that an edit is trained at."""
    times: Literal["uniform", "rollout"] = "uniform"
    """Where an edit's noise levels are from: drawn from 0..1, or as many different ones of those it was sampled at."""
    solver: SolverName = "euler"
    """Solver of the sampling. Evaluations use Euler steps."""
    common_noise: bool = False
    """Whether the members of a group get the same noise at the same levels in the update, so that what they have in
    common cancels."""
    old_policy_decay: float = Field(0.5, ge=0, le=1)
    """Decay of the old policy's moving average after each iteration; the highest one, where it rises."""
    old_policy_rate: float | None = Field(None, gt=0)
    """What that decay rises by with each optimiser step, from 0 on; null: it is the same from the start."""
    old_policy_flat: int = Field(0, ge=0)
    """Optimiser steps before it rises. Until then the old policy is the trained one."""

    @property
    def levels_per_edit(self) -> int:
        return self.levels

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if self.old_policy_flat and self.old_policy_rate is None:
            raise ValueError(f"old_policy_flat {self.old_policy_flat} without old_policy_rate: nothing rises after it")
        return self

    def check_steps(self, steps: int) -> None:
        if self.times == "rollout" and self.levels > steps:
            raise ValueError(
                f"algorithm.levels {self.levels} of the rollout's times: it has {steps}, one for each step"
            )


class FlowGrpoSettings(AlgorithmSettings):
    """Settings of Flow-GRPO, which trains on stochastic sampling steps."""

    name: Literal["flow-grpo"] = "flow-grpo"
    step: Literal["flow-sde", "cps", "dance-sde"] = "flow-sde"
    """Kind of stochastic step."""
    noise: float = Field(0.7, gt=0)
    """Amount of noise in stochastic steps, a in the papers; 0..1 for cps."""
    window: int = Field(2, ge=1)
    """Number of stochastic steps in each trajectory. The others are deterministic and carry no gradient."""
    window_kind: WindowKind = "random"
    """Position of the window: at the first step, drawn anew in each iteration, or sliding along the steps."""
    window_range: int = Field(4, ge=1)
    """The window lies within this many first steps."""
    trained: int | None = Field(None, ge=1)
    """Number of the window's steps that an edit is trained on; null: all of them."""
    trained_kind: Literal["first", "random"] = "first"
    """Which steps these are: the window's first, or drawn for each forward batch (`forward_batch`) anew."""
    storage: Literal["fp32", "bf16"] = "fp32"
    """Type in which a trajectory's latents are stored. Log-probabilities are of the stored values."""
    shared_noise: bool = False
    """Whether the members of a group start from the same noise, so that the steps before the window are computed once.

    The members then differ little: the reward's spread on drawn scenes was 0.06, against 0.15 with separate noise.
    """
    guidance_share: float = Field(1.0, gt=0, le=1)
    """Step i of n, from 0, uses guidance where i / n is at most this. The others use 1, which is none."""
    ratio_clip: tuple[float, float] = (2e-4, 2e-4)
    """How far below and above 1 the probability ratio may be before it is clipped."""
    guard: bool = False
    """Use GRPO-Guard's ratio, whose logarithm has mean 0 at every noise level."""
    reweighting: Literal["none", "mean-one", "published"] = "none"
    """TempFlow-GRPO's weights of the policy loss, proportional to a step's deviation: with mean 1 over the trained
    steps, or as EditScore's code has them, with mean N for N trained steps."""
    kl_form: Literal["exact", "published"] = "exact"
    """The exact KL of the steps, or what published code computes, whose deviation lacks the step's length."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.window > self.window_range:
            raise ValueError(f"window {self.window} is longer than window_range {self.window_range}, which it lies in")
        if self.step == "cps" and self.noise > 1:
            raise ValueError(f"noise {self.noise} with cps: at most 1")
        if min(self.ratio_clip) <= 0:
            raise ValueError(f"ratio_clip {self.ratio_clip}: both sides above 0")
        if self.trained is not None and self.trained > self.window:
            raise ValueError(f"trained {self.trained} is above window {self.window}: at most its steps are trained on")
        return self

    @property
    def levels_per_edit(self) -> int:
        return self.trained or self.window

    @property
    def draws_levels(self) -> bool:
        return self.trained_kind == "random" and self.levels_per_edit < self.window

    def check_steps(self, steps: int) -> None:
        if self.window_range > steps:
            raise ValueError(
                f"algorithm.window_range {self.window_range} is longer than the trajectory of {steps} steps"
            )
        if self.window_range == steps and self.step == "cps":
            raise ValueError(
                f"algorithm.window_range {self.window_range} of {steps} steps with cps: its last step, to sigma 0, "
                "has no deviation; leave it out"
            )


AnyAlgorithmSettings = NftSettings | FlowGrpoSettings
"""Settings of one of the algorithms. `build_algorithm` makes the algorithm of each."""

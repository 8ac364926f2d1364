"""Flow-GRPO in the training loop: a window of sampling steps is stochastic, and each of them is an optimiser step.

Edits are sampled by the trained weights themselves. The maths is in `sde`, `policy_loss`, `reweighting` and `windows`.
"""

import math

import torch
from torch import Tensor

from editloop.models.editors.protocol import Editor
from editloop.training.editor_rl.algorithm import Losses, RlAlgorithm, UpdateLevel
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.policy_loss import clipped_loss, clipped_mask, guarded_ratio, probability_ratio
from editloop.training.editor_rl.reweighting import noise_aware_weights
from editloop.training.editor_rl.rollout import Rollout, SamplingPlan, velocities
from editloop.training.editor_rl.sde import STEPS, gaussian_kl, log_prob, round_to_storage
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.windows import trained_window

STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16}


class GrpoLevel:
    """A stochastic step of a rollout."""

    def __init__(
        self,
        settings: RlSettings,
        grpo: FlowGrpoSettings,
        editor: Editor,
        rollout: Rollout,
        index: int,
        with_base: bool,
    ):
        """Take the step, and compute the frozen editor's mean if wanted.

        Args:
            settings: The training's settings.
            grpo: The algorithm's settings.
            editor: The editor.
            rollout: The N edits.
            index: The step's index in the rollout's window.
            with_base: Whether to compute the distance to the frozen editor. Without it the loss has no KL term.
        """
        self.settings, self.grpo, self.editor, self.rollout = settings, grpo, editor, rollout
        self.step = rollout.window[index]
        weights = noise_aware_weights([step.deviation for step in rollout.window])
        self.weight = weights[index] if grpo.reweighting else 1.0
        self.base: Tensor | None = None
        if with_base:
            with torch.no_grad(), editor.base():
                self.base = self._mean(torch.arange(len(rollout)))

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        grpo, step = self.grpo, self.step
        mean = self._mean(part)
        now = log_prob(round_to_storage(step.after[part], torch.float32), mean, step.deviation)
        rolled = step.log_prob[part]
        if grpo.guard:
            ratios = guarded_ratio(now, rolled, mean, step.mean[part], step.deviation)
        else:
            ratios = probability_ratio(now, rolled)
        loss = self.weight * clipped_loss(ratios, advantage, *grpo.ratio_clip)
        figures = {
            "ratio": ratios.detach(),
            "ratio_deviation": (ratios.detach() - 1).square(),
            "clipped": clipped_mask(ratios.detach(), advantage, *grpo.ratio_clip).float(),
        }
        if self.base is None:
            return Losses(loss, figures)
        delta = step.following - step.sigma if grpo.kl_form == "published" else None
        kl = gaussian_kl(mean, self.base[part], step.deviation, delta)
        return Losses(loss + self.settings.kl * kl, figures | {"kl": kl.detach()})

    def _mean(self, part: Tensor) -> Tensor:
        step = self.step
        before = round_to_storage(step.before[part], torch.float32)
        levels = torch.full((len(part),), step.sigma, device=before.device)
        v = velocities(
            self.editor,
            before,
            levels,
            self.rollout.condition,
            self.rollout.rows[part],
            step.guidance,
            self.settings.micro_batch,
        )
        return STEPS[self.grpo.step](before, v, step.sigma, step.following, self.grpo.noise)[0]


class FlowGrpoAlgorithm(RlAlgorithm):
    """Flow-GRPO, an `RlAlgorithm`."""

    figure_names = ("ratio", "ratio_deviation", "clipped")

    def __init__(self, settings: RlSettings, grpo: FlowGrpoSettings, editor: Editor):
        """Take what the algorithm works with.

        Args:
            settings: The training's settings.
            grpo: The algorithm's settings.
            editor: The editor to train.
        """
        self.settings, self.grpo, self.editor = settings, grpo, editor
        self.levels = grpo.window

    def sampling_plan(self, iteration: int) -> SamplingPlan:
        grpo = self.grpo
        return SamplingPlan(
            window=trained_window(
                grpo.window_kind, iteration, self.settings.seed, size=grpo.window, reach=grpo.window_range
            ),
            step=STEPS[grpo.step],
            noise=grpo.noise,
            storage=STORAGE[grpo.storage],
            shared_noise=grpo.shared_noise,
            guidance_share=grpo.guidance_share,
        )

    def update_levels(self, rollout: Rollout, iteration: int, *, with_base: bool) -> list[UpdateLevel]:
        return [
            GrpoLevel(self.settings, self.grpo, self.editor, rollout, index, with_base) for index in range(self.levels)
        ]

    def finished_figures(self, means: dict[str, float]) -> dict[str, float]:
        """Turn the mean square of ratio - 1 into its root.

        Args:
            means: Means of the losses' figures, by name.
        """
        return means | {"ratio_deviation": math.sqrt(means["ratio_deviation"])}

"""Flow-GRPO in the training loop: a window of sampling steps is stochastic, and some or all of them are trained.

Edits are sampled by the trained weights themselves. The maths is in `sde`, `policy_loss`, `reweighting` and `windows`.
"""

import math

import torch
from torch import Tensor

from editloop.models.editors.protocol import Editor
from editloop.training.editor_rl.algorithm import Losses, RlAlgorithm, UpdateLevel
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.policy_loss import clipped_loss, clipped_mask, guarded_ratio, probability_ratio
from editloop.training.editor_rl.reweighting import step_weights
from editloop.training.editor_rl.rollout import Rollout, SamplingPlan, velocities
from editloop.training.editor_rl.sde import STEPS, gaussian_kl, log_prob, round_to_storage
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.update_steps import drawn_levels
from editloop.training.editor_rl.windows import trained_window

STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16}


class GrpoLevel:
    """A stochastic step of a rollout, an `UpdateLevel`."""

    def __init__(
        self,
        settings: RlSettings,
        grpo: FlowGrpoSettings,
        editor: Editor,
        rollout: Rollout,
        index: int,
        with_base: bool,
        edits: Tensor | None,
        step_weights: Tensor,
    ):
        """Take the step, and compute the frozen editor's mean if wanted.

        Args:
            settings: The training's settings.
            grpo: The algorithm's settings.
            editor: The editor.
            rollout: The N edits.
            index: The step's index in the rollout's window.
            with_base: Whether to compute the distance to the frozen editor. Without it the loss has no KL term.
            edits: Which edits are trained on this step, bool (N,); None: all.
            step_weights: Weight of the step in each edit's policy loss, (N,).
        """
        self.settings, self.grpo, self.editor, self.rollout = settings, grpo, editor, rollout
        self.step, self.edits, self.step_weights = rollout.window[index], edits, step_weights
        self.base: Tensor | None = None
        if with_base:
            places = torch.arange(len(rollout)) if edits is None else edits.nonzero().flatten()
            self.base = torch.zeros_like(self.step.mean)
            if len(places):
                with torch.no_grad(), editor.base():
                    self.base[places] = self._mean(places)

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        grpo, step = self.grpo, self.step
        mean = self._mean(part)
        now = log_prob(round_to_storage(step.after[part], torch.float32), mean, step.deviation)
        rolled = step.log_prob[part]
        if grpo.guard:
            ratios = guarded_ratio(now, rolled, mean, step.mean[part], step.deviation)
        else:
            ratios = probability_ratio(now, rolled)
        loss = self.step_weights[part].to(ratios) * clipped_loss(ratios, advantage, *grpo.ratio_clip)
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
        self.levels_per_edit = grpo.levels_per_edit
        self.levels = grpo.window if grpo.draws_levels else grpo.levels_per_edit

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
        deviations = torch.tensor([step.deviation for step in rollout.window], dtype=torch.float64)
        trained = torch.arange(len(deviations)).expand(len(rollout), -1) < self.levels_per_edit
        if self.grpo.draws_levels:
            trained = drawn_levels(
                rollout.batches,
                levels=self.levels,
                drawn=self.levels_per_edit,
                seed=self.settings.seed,
                iteration=iteration,
            )
        weights = step_weights(self.grpo.reweighting, deviations, trained)
        return [
            GrpoLevel(
                self.settings,
                self.grpo,
                self.editor,
                rollout,
                index,
                with_base,
                trained[:, index] if self.grpo.draws_levels else None,
                weights[:, index],
            )
            for index in range(self.levels)
        ]

    def finished_figures(self, means: dict[str, float]) -> dict[str, float]:
        """Turn the mean square of ratio - 1 into its root.

        Args:
            means: Means of the losses' figures, by name.
        """
        return means | {"ratio_deviation": math.sqrt(means["ratio_deviation"])}

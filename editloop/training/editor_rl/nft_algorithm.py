"""DiffusionNFT in the training loop: finished edits are noised again, at levels of their own.

Edits are sampled by the old policy, a moving average of the trained weights. `nft` has the maths.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from editloop.models.editors.protocol import Editor
from editloop.models.editors.solvers import SOLVERS
from editloop.training.editor_rl.algorithm import Losses, RlAlgorithm, UpdateLevel
from editloop.training.editor_rl.algorithm_settings import NftSettings
from editloop.training.editor_rl.nft import compute_optimality, kl_to_base, nft_loss, old_policy_decay
from editloop.training.editor_rl.rollout import (
    TRAINING,
    Rollout,
    SamplingPlan,
    noise_generators,
    standard_normal_like,
    velocities,
)
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights


class NftLevel:
    """A rollout's edits, each noised to a level of its own, an `UpdateLevel`."""

    edits: Tensor | None = None

    def __init__(
        self,
        settings: RlSettings,
        nft: NftSettings,
        editor: Editor,
        rollout: Rollout,
        noise: Tensor,
        sigma: Tensor,
        weights: TrainedWeights,
        old: list[Tensor],
        with_base: bool,
    ):
        """Noise the edits and compute the old policy's velocities, and the frozen editor's if wanted.

        Args:
            settings: The training's settings.
            nft: The algorithm's settings.
            editor: The editor.
            rollout: The N edits.
            noise: Standard normal noise, (N, S, C).
            sigma: Noise level of each edit, (N,), 0..1.
            weights: The trained parameters.
            old: The old policy's values of these parameters.
            with_base: Whether to compute the distance to the frozen editor. Without it the loss has no KL term.
        """
        self.settings, self.nft, self.editor, self.rollout, self.sigma = settings, nft, editor, rollout, sigma
        level = sigma[:, None, None]
        self.noised = (1 - level) * rollout.latents + level * noise
        self.base: Tensor | None = None
        everything = torch.arange(len(rollout))
        with torch.no_grad():
            with weights.swapped(old), editor.merged():
                self.old = self._velocities(everything)
            if with_base:
                with editor.base():
                    self.base = self._velocities(everything)

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        nft = self.nft
        v = self._velocities(part)
        optimality = compute_optimality(advantage, nft.advantage_clip)
        loss = nft_loss(
            v,
            self.old[part],
            self.noised[part],
            self.rollout.latents[part],
            self.sigma[part],
            optimality,
            nft.beta,
            nft.advantage_clip,
        )
        if self.base is None:
            return Losses(loss, {})
        kl = kl_to_base(v, self.base[part])
        return Losses(loss + self.settings.kl * kl, {"kl": kl.detach()})

    def _velocities(self, part: Tensor) -> Tensor:
        return velocities(
            self.editor,
            self.noised[part],
            self.sigma[part],
            self.rollout.condition,
            self.rollout.rows[part],
            self.settings.guidance,
            self.settings.micro_batch,
        )


class NftAlgorithm(RlAlgorithm):
    """DiffusionNFT, an `RlAlgorithm`."""

    def __init__(self, settings: RlSettings, nft: NftSettings, editor: Editor, weights: TrainedWeights):
        """Start with the present weights as the old policy.

        Args:
            settings: The training's settings.
            nft: The algorithm's settings.
            editor: The editor to train.
            weights: Its trained parameters.
        """
        self.settings, self.nft, self.editor, self.weights = settings, nft, editor, weights
        self.levels = self.levels_per_edit = nft.levels
        self.old = weights.copy()
        """The old policy's values of the trained parameters."""

    def sampling_plan(self, iteration: int) -> SamplingPlan:
        return SamplingPlan(solver=SOLVERS[self.nft.solver])

    def sampling_weights(self) -> AbstractContextManager[None]:
        return self.weights.swapped(self.old)

    def update_levels(self, rollout: Rollout, iteration: int, *, with_base: bool) -> list[UpdateLevel]:
        names = [(task, 0) for task, _ in rollout.names] if self.nft.common_noise else rollout.names
        generators = noise_generators(self.settings, iteration, names, TRAINING)
        times = self._rollout_times(rollout, generators) if self.nft.times == "rollout" else None
        levels: list[UpdateLevel] = []
        for index in range(self.levels):
            if times is None:
                sigma = torch.stack([torch.rand((), generator=generator) for generator in generators])
            else:
                sigma = times[:, index]
            noise = standard_normal_like(rollout.latents, generators)
            drawn = (noise, sigma.to(noise.device))
            level = NftLevel(self.settings, self.nft, self.editor, rollout, *drawn, self.weights, self.old, with_base)
            levels.append(level)
        return levels

    def end_iteration(self, steps: int) -> None:
        """Move the old policy towards the trained weights.

        Args:
            steps: Optimiser steps of the training so far.
        """
        nft = self.nft
        decay = old_policy_decay(steps, nft.old_policy_decay, nft.old_policy_rate, nft.old_policy_flat)
        self.weights.ema_update(self.old, decay)

    def state(self) -> dict[str, Tensor]:
        return {f"old.{index}": value for index, value in enumerate(self.old)}

    def _rollout_times(self, rollout: Rollout, generators: list[torch.Generator]) -> Tensor:
        """Return noise levels (N, levels): for each edit different ones of those that it was sampled at."""
        starts = torch.tensor(rollout.sigmas[:-1])
        drawn = [torch.randperm(len(starts), generator=generator)[: self.levels] for generator in generators]
        return starts[torch.stack(drawn)]

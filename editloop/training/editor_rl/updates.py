"""Loss of a rollout's edits: DiffusionNFT on noised edits, Flow-GRPO on stochastic steps.

Both make one optimiser step per level: a noise level of NFT, or a step of Flow-GRPO's window. A level computes what it
needs besides the reward, the velocities of the old policy and of the frozen editor, when it is made. The frozen editor
is used only where the distance to it is wanted.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from editloop.models.editors.protocol import Editor
from editloop.training.editor_rl.nft import compute_optimality, kl_to_base, nft_loss
from editloop.training.editor_rl.policy_loss import clipped_loss, clipped_mask, guarded_ratio, probability_ratio
from editloop.training.editor_rl.reweighting import noise_aware_weights
from editloop.training.editor_rl.rollout import TRAINING, Rollout, noise_generators, slices, velocities
from editloop.training.editor_rl.sde import STEPS, gaussian_kl, log_prob, round_to_storage
from editloop.training.editor_rl.settings import RlSettings


class Losses(NamedTuple):
    """Losses of n edits, (n,) each."""

    loss: Tensor
    figures: dict[str, Tensor]
    """Detached figures by name: `kl` where the frozen editor was used, and for Flow-GRPO `ratio`, `ratio_deviation`
    (the square of ratio - 1) and `clipped`."""


class UpdateLevel(Protocol):
    """A rollout at one level of an update."""

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        """Return the losses of some of the edits, with gradient.

        Args:
            part: Indices of the edits, (n,).
            advantage: Advantages of these edits, (n,).
        """
        ...


class TrainedWeights:
    """The trained parameters, and the exchange of their values with others."""

    def __init__(self, trained: Sequence[nn.Parameter]):
        """Take the parameters.

        Args:
            trained: The trained parameters.
        """
        self.trained = list(trained)

    def copy(self) -> list[Tensor]:
        """Return a copy of the parameters' values."""
        return [parameter.detach().clone() for parameter in self.trained]

    def swap(self, others: list[Tensor]) -> None:
        """Exchange the parameters' values with others, in place. A second call restores both.

        Args:
            others: A value per parameter.
        """
        for index, parameter in enumerate(self.trained):
            parameter.data, others[index] = others[index], parameter.data

    def ema_update(self, averages: list[Tensor], decay: float) -> None:
        """Update moving averages in place: decay * average + (1 - decay) * parameter.

        Args:
            averages: An average per parameter.
            decay: Decay, 0..1.
        """
        for average, parameter in zip(averages, self.trained, strict=True):
            average.lerp_(parameter.detach(), 1 - decay)


class NftLevel:
    """A rollout's edits, each noised to a level of its own."""

    def __init__(
        self,
        settings: RlSettings,
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
            editor: The editor.
            rollout: The N edits.
            noise: Standard normal noise, (N, S, C).
            sigma: Noise level of each edit, (N,), 0..1.
            weights: The trained parameters.
            old: The old policy's values of these parameters.
            with_base: Whether to compute the distance to the frozen editor. Without it the loss has no KL term.
        """
        self.settings, self.editor, self.rollout, self.sigma = settings, editor, rollout, sigma
        level = sigma[:, None, None]
        self.noised = (1 - level) * rollout.latents + level * noise
        self.base: Tensor | None = None
        everything = torch.arange(len(rollout))
        with torch.no_grad():
            weights.swap(old)
            try:
                self.old = self._velocities(everything)
            finally:
                weights.swap(old)
            if with_base:
                with editor.base():
                    self.base = self._velocities(everything)

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        settings = self.settings
        v = self._velocities(part)
        optimality = compute_optimality(advantage, settings.largest)
        loss = nft_loss(
            v,
            self.old[part],
            self.noised[part],
            self.rollout.latents[part],
            self.sigma[part],
            optimality,
            settings.strength,
            settings.largest,
        )
        if self.base is None:
            return Losses(loss, {})
        kl = kl_to_base(v, self.base[part])
        return Losses(loss + settings.kl * kl, {"kl": kl.detach()})

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


class GrpoLevel:
    """A stochastic step of a rollout."""

    def __init__(self, settings: RlSettings, editor: Editor, rollout: Rollout, index: int, with_base: bool):
        """Take the step, and compute the frozen editor's mean if wanted.

        Args:
            settings: The training's settings.
            editor: The editor.
            rollout: The N edits.
            index: The step's index in the rollout's window.
            with_base: Whether to compute the distance to the frozen editor. Without it the loss has no KL term.
        """
        self.settings, self.editor, self.rollout = settings, editor, rollout
        self.step = rollout.window[index]
        weights = noise_aware_weights([step.deviation for step in rollout.window])
        self.weight = weights[index] if settings.reweighting else 1.0
        self.base: Tensor | None = None
        if with_base:
            with torch.no_grad(), editor.base():
                self.base = self._mean(torch.arange(len(rollout)))

    def losses(self, part: Tensor, advantage: Tensor) -> Losses:
        settings, step = self.settings, self.step
        mean = self._mean(part)
        now, rolled = (
            log_prob(round_to_storage(step.after[part], torch.float32), mean, step.deviation),
            step.log_prob[part],
        )
        if settings.guard:
            ratios = guarded_ratio(now, rolled, mean, step.mean[part], step.deviation)
        else:
            ratios = probability_ratio(now, rolled)
        loss = self.weight * clipped_loss(ratios, advantage, *settings.clip)
        figures = {
            "ratio": ratios.detach(),
            "ratio_deviation": (ratios.detach() - 1).square(),
            "clipped": clipped_mask(ratios.detach(), advantage, *settings.clip).float(),
        }
        if self.base is None:
            return Losses(loss, figures)
        delta = step.following - step.sigma if settings.kl_form == "published" else None
        kl = gaussian_kl(mean, self.base[part], step.deviation, delta)
        return Losses(loss + settings.kl * kl, figures | {"kl": kl.detach()})

    def _mean(self, part: Tensor) -> Tensor:
        step, settings = self.step, self.settings
        before = round_to_storage(step.before[part], torch.float32)
        levels = torch.full((len(part),), step.sigma, device=before.device)
        v = velocities(
            self.editor,
            before,
            levels,
            self.rollout.condition,
            self.rollout.rows[part],
            step.guidance,
            settings.micro_batch,
        )
        return STEPS[settings.step](before, v, step.sigma, step.following, settings.noise)[0]


def build_levels(
    settings: RlSettings,
    editor: Editor,
    rollout: Rollout,
    iteration: int,
    weights: TrainedWeights,
    old: list[Tensor],
    with_base: bool,
) -> list[UpdateLevel]:
    """Return the levels of a rollout's update in order.

    Args:
        settings: The training's settings.
        editor: The editor.
        rollout: The edits.
        iteration: The iteration, from 0.
        weights: The trained parameters.
        old: The old policy's values of these parameters, used by NFT.
        with_base: Whether to compute the distance to the frozen editor. Without it losses have no KL term, and no `kl`
            among their figures.
    """
    if settings.algorithm == "flow-grpo":
        return [GrpoLevel(settings, editor, rollout, index, with_base) for index in range(len(rollout.window))]
    names = [(task, 0) for task, _ in rollout.names] if settings.common_noise else rollout.names
    draws = noise_generators(settings, iteration, names, TRAINING)
    levels: list[UpdateLevel] = []
    for _ in range(settings.levels):
        sigma = torch.stack([torch.rand((), generator=generator) for generator in draws]).to(rollout.latents.device)
        noise = torch.stack([torch.randn(rollout.latents.shape[1:], generator=generator) for generator in draws])
        levels.append(NftLevel(settings, editor, rollout, noise.to(sigma.device), sigma, weights, old, with_base))
    return levels


def micro_batches(counting: Tensor, most: int) -> list[Tensor]:
    """Return the indices of the edits that count, in parts.

    Args:
        counting: Which edits count, bool (N,).
        most: Largest number of edits in a part.
    """
    places = counting.nonzero().flatten()
    return [places[part] for part in slices(len(places), most)]

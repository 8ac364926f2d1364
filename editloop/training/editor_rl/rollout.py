"""Sampling the edits of an iteration, with what the update wants to know of the trajectories.

An edit's noise depends on (seed, iteration, task, member) alone, so that it does not matter which rank makes it, or
whether the training was stopped in between.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.settings import Size
from editloop.training.editor_rl.sde import STEPS, draw_gaussian, log_prob, round_to_storage
from editloop.training.editor_rl.settings import RlSettings

SAMPLING, TRAINING = 0, 1
"""What noise is for: the two draw from streams of their own."""
STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class WindowStep:
    """A stochastic step as it was rolled out, of N edits; latents (N, S, C) in the storage's type."""

    sigma: float
    following: float
    guidance: float | None
    before: Tensor
    after: Tensor
    mean: Tensor
    """fp32: what `after` was drawn around."""
    log_prob: Tensor
    """(N,)"""
    deviation: float


@dataclass(frozen=True)
class Rollout:
    """N edits of P tasks of one size, a task's members one after the other."""

    size: Size
    condition: Conditioning
    """P rows."""
    names: list[tuple[int, int]]
    """Task and member of each edit."""
    rows: Tensor
    """(N,): each edit's row of `condition`."""
    latents: Tensor
    """(N, S, C) at sigma 0."""
    window: list[WindowStep]

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Tensor) -> "Rollout":
        """The edits at `places` (n,) alone."""
        window = [
            replace(
                step,
                before=step.before[indices],
                after=step.after[indices],
                mean=step.mean[indices],
                log_prob=step.log_prob[indices],
            )
            for step in self.window
        ]
        names = [self.names[index] for index in indices.tolist()]
        return replace(self, names=names, rows=self.rows[indices], latents=self.latents[indices], window=window)


@dataclass
class SamplingCost:
    """What sampling cost so far."""

    network: int = 0
    """Latents that went through the network."""
    shared: int = 0
    """Those among them that stood for their whole group."""


def noise_generators(
    settings: RlSettings, iteration: int, names: Sequence[tuple[int, int]], purpose: int
) -> list[torch.Generator]:
    """A generator for each edit (task, member), on the CPU."""
    streams = []
    for task, member in names:
        mixed = np.random.SeedSequence([settings.seed, iteration, task, member, purpose])
        streams.append(torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0] >> 1)))
    return streams


def standard_normal_like(like: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Standard normal noise of the shape and device of `like` (N, S, C), a generator a row."""
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in draws]).to(like.device)


def velocities(
    editor: Editor, x: Tensor, sigma: Tensor, condition: Conditioning, rows: Tensor, guidance: float | None, most: int
) -> Tensor:
    """Velocities (N, S, C) at x and sigma (N,); row n belongs to task `rows[n]` of `condition`. `most` at a time."""
    parts = [
        editor.velocity(x[part], sigma[part], condition.select(rows[part]), guidance) for part in slices(len(x), most)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def slices(count: int, most: int) -> Iterator[slice]:
    """0..count in parts of at most `most`."""
    return (slice(start, min(start + most, count)) for start in range(0, count, most))


@torch.no_grad()
def sample_rollout(
    settings: RlSettings,
    editor: Editor,
    condition: Conditioning,
    tasks: list[int],
    iteration: int,
    window: range,
    counts: SamplingCost,
) -> Rollout:
    """Edit each of P tasks (rows of `condition`, on the editor's device) `members` times.

    The steps of `window` are stochastic. Members that share their first noise share the steps before it.
    """
    members, most = settings.members, settings.micro_batch
    names = [(task, member) for task in tasks for member in range(members)]
    draws = noise_generators(settings, iteration, names, SAMPLING)
    one_each = torch.arange(len(tasks))
    rows = one_each.repeat_interleave(members)
    if settings.shared_noise:
        starts, active_rows = draws[::members], one_each
    else:
        starts, active_rows = draws, rows
    x = torch.cat([editor.noise(1, condition.size, generator) for generator in starts])
    sigmas = editor.sigmas(settings.steps, condition.size).tolist()
    guided = ceil(settings.guidance_share * settings.steps)
    storage_dtype = STORAGE[settings.storage]
    steps: list[WindowStep] = []
    for index, (sigma, following) in enumerate(pairwise(sigmas)):
        if index == window.start and len(x) < len(rows):
            x, active_rows = x.repeat_interleave(members, 0), rows
        guidance = settings.guidance if index < guided else 1.0
        if index in window:
            x = round_to_storage(x, storage_dtype)  # the update sees what is kept, so the rollout must
        levels = torch.full((len(x),), sigma, device=x.device)
        v = velocities(editor, x, levels, condition, active_rows, guidance, most)
        counts.network += len(x)
        counts.shared += len(x) if len(x) < len(rows) else 0
        if index not in window:
            x = x + (following - sigma) * v
            continue
        mean, deviation = STEPS[settings.step](x, v, sigma, following, settings.noise)
        assert isinstance(deviation, float)
        before, after = (
            x.to(storage_dtype),
            draw_gaussian(mean, deviation, standard_normal_like(x, draws)).to(storage_dtype),
        )
        x = round_to_storage(after, storage_dtype)
        rolled = log_prob(x, mean, deviation)
        steps.append(WindowStep(sigma, following, guidance, before, after, mean, rolled, deviation))
    if len(x) < len(rows):
        x = x.repeat_interleave(members, 0)
    return Rollout(condition.size, condition, names, rows, x, steps)


def decode_rollout(editor: Editor, rollout: Rollout, most: int) -> NDArray[np.uint8]:
    """The edits, uint8 (N, height, width, 3)."""
    parts = [editor.decode(rollout.latents[part], rollout.size) for part in slices(len(rollout.latents), most)]
    return np.concatenate(parts)

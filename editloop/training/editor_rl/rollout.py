"""Sampling of an iteration's edits, with what the update needs of their trajectories.

An edit's noise depends on (seed, iteration, task, member) alone. It does not matter which rank samples it, or whether
the training was stopped in between.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.models.editors.protocol import Conditioning, Editor
from editloop.models.editors.settings import Size
from editloop.models.editors.solvers import EulerSolver, OdeSolver
from editloop.training.editor_rl.sde import Step, draw_gaussian, flow_sde, log_prob, round_to_storage
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.flow_matching import shifted

SAMPLING, TRAINING = 0, 1
"""Purposes of noise. Each has its own random stream."""
SAME_STEP = 1e-6
"""Rounding of a share of the steps, in steps."""


@dataclass(frozen=True)
class SamplingPlan:
    """How the edits of an iteration are sampled, as the algorithm wants it. The default: by deterministic steps."""

    window: range = range(0)
    """Steps that are stochastic, and stored for the update."""
    solver: Callable[[Sequence[float]], OdeSolver] = EulerSolver
    """Solver of the deterministic steps. One that remembers earlier steps needs all steps to be deterministic."""
    step: Step = flow_sde
    """Kind of the stochastic steps."""
    noise: float = 0.0
    """Amount of noise in the stochastic steps."""
    storage: torch.dtype = torch.float32
    """Type in which the latents of stochastic steps are stored."""
    shared_noise: bool = False
    """Whether the members of a group start from the same noise, and share the steps before the window."""
    guidance_share: float = 1.0
    """Step i of n, from 0, uses guidance where i / n is at most this."""


@dataclass(frozen=True)
class WindowStep:
    """A stochastic step of N edits as it was sampled. Latents are (N, S, C) in the storage's type."""

    sigma: float
    """Noise level before the step."""
    following: float
    """Noise level after the step."""
    guidance: float | None
    """Guidance of the step; None for the editor's own."""
    before: Tensor
    """Latents before the step."""
    after: Tensor
    """Latents after the step."""
    mean: Tensor
    """Mean that `after` was drawn around, fp32."""
    log_prob: Tensor
    """Log-probability of `after`, (N,)."""
    deviation: float
    """Standard deviation that `after` was drawn with."""


@dataclass(frozen=True)
class Rollout:
    """N edits of P tasks of one size. A task's members follow each other."""

    size: Size
    condition: Conditioning
    """Encoded tasks, P rows."""
    names: list[tuple[int, int]]
    """(task, member) of each edit."""
    rows: Tensor
    """Row of `condition` of each edit, (N,)."""
    latents: Tensor
    """Latents of the finished edits at sigma 0, (N, S, C)."""
    window: list[WindowStep]
    """Stochastic steps in their order."""
    sigmas: list[float]
    """Noise levels of the steps, from 1 on; the last is 0."""
    batches: Tensor
    """Batch of each edit, (N,), from `forward_batches`."""

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: Tensor) -> "Rollout":
        """Return a rollout of some of the edits.

        Args:
            indices: Indices of the edits, (n,).
        """
        by_edit = ("before", "after", "mean", "log_prob")
        window = [replace(step, **{name: getattr(step, name)[indices] for name in by_edit}) for step in self.window]
        names = [self.names[index] for index in indices.tolist()]
        parts = {name: getattr(self, name)[indices] for name in ("rows", "latents", "batches")}
        return replace(self, names=names, window=window, **parts)


@dataclass
class SamplingCost:
    """Cost of sampling so far."""

    network: int = 0
    """Number of latents that went through the network."""
    shared: int = 0
    """Number of those that stood for their whole group."""


def noise_generators(
    settings: RlSettings, iteration: int, names: Sequence[tuple[int, int]], purpose: int
) -> list[torch.Generator]:
    """Return a random generator for each edit, on the CPU.

    Args:
        settings: Its `seed` is used.
        iteration: The iteration, from 0.
        names: (task, member) of each edit.
        purpose: SAMPLING or TRAINING.
    """
    streams = []
    for task, member in names:
        mixed = np.random.SeedSequence([settings.seed, iteration, task, member, purpose])
        streams.append(torch.Generator().manual_seed(int(mixed.generate_state(1, np.uint64)[0] >> 1)))
    return streams


def standard_normal_like(like: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Return standard normal noise of the shape and device of `like`.

    Args:
        like: Latents, (N, S, C).
        draws: A generator per row.
    """
    return torch.stack([torch.randn(like.shape[1:], generator=generator) for generator in draws]).to(like.device)


def velocities(
    editor: Editor, x: Tensor, sigma: Tensor, condition: Conditioning, rows: Tensor, guidance: float | None, most: int
) -> Tensor:
    """Return the editor's velocities, (N, S, C).

    Args:
        editor: The editor.
        x: Latents, (N, S, C).
        sigma: Noise levels, (N,).
        condition: Encoded tasks, P rows.
        rows: Row of `condition` of each latent, (N,).
        guidance: Guidance; None for the editor's own.
        most: Latents that go through the network at a time.
    """
    parts = [
        editor.velocity(x[part], sigma[part], condition.select(rows[part]), guidance) for part in slices(len(x), most)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def slices(count: int, most: int) -> Iterator[slice]:
    """Cut 0..count into consecutive slices.

    Args:
        count: End of the last slice.
        most: Largest length of a slice.
    """
    return (slice(start, min(start + most, count)) for start in range(0, count, most))


def micro_batches(counting: Tensor, most: int) -> list[Tensor]:
    """Return the indices of the edits that count, in parts.

    Args:
        counting: Which edits count, bool (N,).
        most: Largest number of edits in a part.
    """
    places = counting.nonzero().flatten()
    return [places[part] for part in slices(len(places), most)]


@torch.no_grad()
def sample_rollout(
    settings: RlSettings,
    plan: SamplingPlan,
    editor: Editor,
    condition: Conditioning,
    tasks: list[int],
    iteration: int,
    counts: SamplingCost,
    batches: Tensor | None = None,
) -> Rollout:
    """Sample `members` edits of each task.

    With `plan.shared_noise` the members of a task start from the same noise, and the steps before the window are
    computed once for all of them.

    Args:
        settings: The training's settings.
        plan: Which steps are stochastic, and how.
        editor: The editor.
        condition: Encoded tasks, P rows of one size, on the editor's device.
        tasks: The P tasks.
        iteration: The iteration, from 0.
        counts: Cost so far, increased here.
        batches: Batch of each edit, (P x `members`,); None puts each into one of its own.

    Returns:
        P x `members` edits with their trajectories in the window.
    """
    members, most = settings.members, settings.micro_batch
    names = [(task, member) for task in tasks for member in range(members)]
    draws = noise_generators(settings, iteration, names, SAMPLING)
    one_each = torch.arange(len(tasks))
    rows = one_each.repeat_interleave(members)
    if plan.shared_noise:
        starts, active_rows = draws[::members], one_each
    else:
        starts, active_rows = draws, rows
    x = torch.cat([editor.noise(1, condition.size, generator) for generator in starts])
    own_sigmas = editor.sigmas(settings.sampling_steps, condition.size)
    sigmas = (own_sigmas if settings.sigma_shift == 1 else shifted(own_sigmas, settings.sigma_shift)).tolist()
    solver, last_guided = plan.solver(sigmas), plan.guidance_share * settings.sampling_steps + SAME_STEP
    batches = torch.arange(len(rows)) if batches is None else batches
    steps: list[WindowStep] = []
    for index, (sigma, following) in enumerate(pairwise(sigmas)):
        if index == plan.window.start and len(x) < len(rows):
            x, active_rows = x.repeat_interleave(members, 0), rows
        guidance = settings.guidance if index <= last_guided else 1.0
        if index in plan.window:
            x = round_to_storage(x, plan.storage)  # the update sees stored values, so the rollout must too
        levels = torch.full((len(x),), sigma, device=x.device)
        v = velocities(editor, x, levels, condition, active_rows, guidance, most)
        counts.network += len(x)
        counts.shared += len(x) if len(x) < len(rows) else 0
        if index not in plan.window:
            x = solver.step(x, v, index)
            continue
        mean, deviation = plan.step(x, v, sigma, following, plan.noise)
        assert isinstance(deviation, float)
        before = x.to(plan.storage)
        after = draw_gaussian(mean, deviation, standard_normal_like(x, draws)).to(plan.storage)
        x = round_to_storage(after, plan.storage)
        rolled = log_prob(x, mean, deviation)
        steps.append(WindowStep(sigma, following, guidance, before, after, mean, rolled, deviation))
    return Rollout(condition.size, condition, names, rows, x, steps, sigmas, batches)


def decode_rollout(editor: Editor, rollout: Rollout, most: int) -> NDArray[np.uint8]:
    """Return a rollout's edits as images, uint8 (N, height, width, 3).

    Args:
        editor: The editor.
        rollout: The rollout.
        most: Edits that are decoded at a time.
    """
    parts = [editor.decode(rollout.latents[part], rollout.size) for part in slices(len(rollout.latents), most)]
    return np.concatenate(parts)

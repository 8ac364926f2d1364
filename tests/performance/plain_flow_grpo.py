"""Flow-GRPO as its published code does it, plainly, for the trainer to be held against.

Every step of the trajectory is stochastic and trained. The members of a group are samples of their own: each batch has
one member of each task, opened, encoded and sampled anew. Rewards are asked for when all is sampled, edit by edit. The
rollout's log-probabilities are computed again before the update. An iteration makes two optimiser steps, each over half
of the edits and all of their steps. Same editor, judge, noise, steps and losses as the trainer's.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from annotation.formats.edits_file import EditRow
from annotation.formats.picture_file import load_image
from components.editor_rl.advantages import advantages
from components.editor_rl.policy_loss import clipped_loss, mean_of, ratio
from components.editor_rl.rollout import SAMPLING, generators, normal
from components.editor_rl.sde import STEPS, divergence, draw, log_prob
from components.editor_rl.settings import RlSettings
from components.editors.protocol import Conditioning, Editor
from components.editors.sampling import working_picture
from components.judges.protocol import EditGroup, Judge

UPDATES = 2
"""Optimiser steps an iteration."""


class Sampled(NamedTuple):
    """One member of each of P tasks."""

    condition: Conditioning
    sigmas: list[float]
    trajectory: list[Tensor]
    """Latents (P, S, C) at each of the sigmas."""
    groups: list[EditGroup]
    """P questions to the judge, of one edit each."""


class PlainFlowGrpo:
    """A trainer of one process."""

    def __init__(self, editor: Editor, rows: Sequence[EditRow], judge: Judge, settings: RlSettings):
        self.editor, self.rows, self.judge, self.settings = editor, rows, judge, settings
        self.trained = editor.add_adapter(settings.rank, settings.alpha)
        self.optimiser = torch.optim.AdamW(self.trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.encodings = 0

    def iteration(self, number: int) -> float:
        """Iteration `number` (from 0); returns the mean reward of its edits."""
        settings = self.settings
        pool = np.random.default_rng([settings.seed, number])
        tasks = pool.choice(len(self.rows), min(settings.tasks, len(self.rows)), replace=False).tolist()
        batches = [
            self.sample(tasks, generators(settings, number, [(task, member) for task in tasks], SAMPLING))
            for member in range(settings.members)
        ]
        told = [[one.reward for (one,) in self.judge.judge(batch.groups)] for batch in batches]
        rewards = torch.tensor([[float("nan") if one is None else one for one in member] for member in told]).T
        found = advantages(rewards, settings.scale)
        with torch.no_grad():
            rolled = [[self.step(batch, place)[0] for place in range(settings.steps)] for batch in batches]
        half = -(-settings.members // UPDATES)
        for start in range(0, settings.members, half):
            members = range(start, min(start + half, settings.members))
            for member in members:
                values, counts = found.values[:, member], found.counts[:, member]
                for place in range(settings.steps):
                    now, mean, deviation = self.step(batches[member], place)
                    with torch.no_grad(), self.editor.base():
                        reference = self.step(batches[member], place)[1]
                    losses = clipped_loss(ratio(now, rolled[member][place]), values, *settings.clip)
                    losses = losses + settings.kl * divergence(mean, reference, deviation)
                    (mean_of(losses, counts) / (len(members) * settings.steps)).backward()
            torch.nn.utils.clip_grad_norm_(self.trained, settings.gradient_clip)
            self.optimiser.step()
            self.optimiser.zero_grad()
        return float(rewards.nanmean())

    @torch.no_grad()
    def sample(self, tasks: Sequence[int], draws: Sequence[torch.Generator]) -> Sampled:
        """One edit of each of P tasks, of one size; a generator each."""
        editor, settings = self.editor, self.settings
        rows = [self.rows[task] for task in tasks]
        sources = np.stack([working_picture(editor, load_image(row.source)) for row in rows])
        condition = editor.encode([row.instruction for row in rows], sources)
        self.encodings += len(rows)
        sigmas = editor.sigmas(settings.steps, condition.size).tolist()
        trajectory = [torch.cat([editor.noise(1, condition.size, one) for one in draws])]
        for sigma, following in pairwise(sigmas):
            x = trajectory[-1]
            v = editor.velocity(x, torch.full((len(x),), sigma), condition, settings.guidance)
            mean, deviation = STEPS[settings.step](x, v, sigma, following, settings.noise)
            trajectory.append(draw(mean, deviation, normal(x, draws)))
        pictures = editor.decode(trajectory[-1], condition.size)
        groups = [
            EditGroup(row.instruction, source, [picture], row.id)
            for row, source, picture in zip(rows, sources, pictures, strict=True)
        ]
        return Sampled(condition, sigmas, trajectory, groups)

    def step(self, batch: Sampled, place: int) -> tuple[Tensor, Tensor, float]:
        """Log-probability (P,) of a step as it was sampled, the mean that the editor gives it now, its deviation."""
        before, after = batch.trajectory[place : place + 2]
        sigma, following = batch.sigmas[place : place + 2]
        v = self.editor.velocity(before, torch.full((len(before),), sigma), batch.condition, self.settings.guidance)
        mean, deviation = STEPS[self.settings.step](before, v, sigma, following, self.settings.noise)
        assert isinstance(deviation, float)
        return log_prob(after, mean, deviation), mean, deviation

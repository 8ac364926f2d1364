"""Flow-GRPO the way its published code does it, for the trainer to be held against: no more work, and no less.

What it does, after yifan123/flow_grpo (`train_flux_kontext.py`, `train_sd3_fast.py`):

- A batch of sampling has one member of each task. Each edit's text and source are encoded in its batch.
- The log-probabilities of stochastic steps are kept as they were sampled, and are not computed again.
- A batch goes to the judge in a thread while the next is sampled.
- Edits whose advantage is zero are left out. The others are shuffled and cut into as many batches as were sampled.
- Two optimiser steps an iteration, each over half of the batches and all trained steps of their edits.
- The frozen editor is asked only where the KL term has a weight.

Which steps are stochastic and trained, the settings say, as for the trainer: all but the last (`timestep_fraction` 0.99
of the published settings), or a window (Flow-GRPO-Fast). Editor, judge, noise, steps and losses are the trainer's.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image
from editloop.models.editors.protocol import Conditioning, Editor, join_conditions
from editloop.models.editors.sampling import working_picture
from editloop.models.judge_protocol import EditGroup, Judge
from editloop.training.editor_rl.advantages import compute_advantages
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.policy_loss import clipped_loss, probability_ratio
from editloop.training.editor_rl.rollout import SAMPLING, noise_generators, standard_normal_like
from editloop.training.editor_rl.sde import STEPS, draw_gaussian, gaussian_kl, log_prob
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.windows import trained_window

UPDATES = 2
"""Optimiser steps an iteration."""


class Trajectories(NamedTuple):
    """N edits of one size at their W stochastic steps."""

    condition: Conditioning
    """N rows."""
    before: Tensor
    """(N, W, S, C): latents that each step began with."""
    after: Tensor
    """(N, W, S, C): what was drawn."""
    log_probs: Tensor
    """(N, W), as they were sampled."""

    def select(self, places: Tensor) -> "Trajectories":
        """The edits at `places` (n,)."""
        tensors = (tensor[places] for tensor in (self.before, self.after, self.log_probs))
        return Trajectories(self.condition.select(places), *tensors)


class PlainFlowGrpo:
    """A trainer of one process."""

    def __init__(self, editor: Editor, rows: Sequence[EditRow], judge: Judge, settings: RlSettings):
        assert isinstance(settings.algorithm, FlowGrpoSettings)
        self.editor, self.rows, self.judge, self.settings = editor, rows, judge, settings
        self.grpo = settings.algorithm
        assert settings.adapter is not None
        self.trained = editor.add_adapter(settings.adapter.rank, settings.adapter.alpha)
        self.optimiser = torch.optim.AdamW(self.trained, lr=settings.learning_rate, weight_decay=settings.weight_decay)
        self.encodings = 0

    def iteration(self, number: int) -> float:
        """Iteration `number` (from 0); returns the mean reward of its edits."""
        settings = self.settings
        pool = np.random.default_rng([settings.seed, number])
        tasks = pool.choice(len(self.rows), min(settings.tasks, len(self.rows)), replace=False).tolist()
        steps = self.trained_steps(number)
        sampled, asked = [], []
        with ThreadPoolExecutor(1) as thread:
            for member in range(settings.members):
                draws = noise_generators(settings, number, [(task, member) for task in tasks], SAMPLING)
                trajectories, groups = self.sample(tasks, draws, steps)
                sampled.append(trajectories)
                asked.append(thread.submit(self.judge.judge, groups))
            scores = [[score.reward for (score,) in future.result()] for future in asked]
        rewards = torch.tensor([[float("nan") if one is None else one for one in member] for member in scores])
        weighed = compute_advantages(rewards.T, settings.advantage_scale)
        edits = Trajectories(
            join_conditions([batch.condition for batch in sampled]),
            *(torch.cat([batch[part] for batch in sampled]) for part in (1, 2, 3)),
        )
        counting = weighed.counts.T.flatten().nonzero().flatten()
        shuffled = counting[torch.randperm(len(counting), generator=torch.Generator().manual_seed(number))]
        self.update(edits, weighed.values.T.flatten().float(), shuffled, steps)
        return float(rewards.nanmean())

    def trained_steps(self, number: int) -> range:
        """The steps of iteration `number` that are stochastic and trained."""
        grpo = self.grpo
        return trained_window(grpo.window_kind, number, self.settings.seed, size=grpo.window, reach=grpo.window_range)

    @torch.no_grad()
    def sample(
        self, tasks: Sequence[int], draws: Sequence[torch.Generator], steps: range
    ) -> tuple[Trajectories, list[EditGroup]]:
        """One edit of each task, of one size, a generator each; and the questions to the judge, of one edit each."""
        editor, settings = self.editor, self.settings
        rows = [self.rows[task] for task in tasks]
        sources = np.stack([working_picture(editor, load_image(row.source)) for row in rows])
        condition = editor.encode([row.instruction for row in rows], sources)
        self.encodings += len(rows)
        x = torch.cat([editor.noise(1, condition.size, one) for one in draws])
        before, after, log_probs = [], [], []
        for place, (sigma, following) in enumerate(
            pairwise(editor.sigmas(settings.sampling_steps, condition.size).tolist())
        ):
            v = editor.velocity(x, torch.full((len(x),), sigma), condition, settings.guidance)
            if place not in steps:
                x = x + (following - sigma) * v
                continue
            mean, deviation = STEPS[self.grpo.step](x, v, sigma, following, self.grpo.noise)
            before.append(x)
            x = draw_gaussian(mean, deviation, standard_normal_like(x, draws))
            after.append(x)
            log_probs.append(log_prob(x, mean, deviation))
        pictures = editor.decode(x, condition.size)
        groups = [
            EditGroup(row.instruction, source, [picture], row.id)
            for row, source, picture in zip(rows, sources, pictures, strict=True)
        ]
        return Trajectories(condition, *(torch.stack(part, 1) for part in (before, after, log_probs))), groups

    def update(self, edits: Trajectories, values: Tensor, places: Tensor, steps: range) -> None:
        """Train on the edits at `places` (n,), in their order; values: the advantages of all edits (N,)."""
        batches = [batch for batch in places.tensor_split(self.settings.members) if len(batch)]
        half = -(-len(batches) // UPDATES)
        for start in range(0, len(batches), half or 1):
            accumulated = batches[start : start + half]
            for batch in accumulated:
                part = edits.select(batch)
                for place, step in enumerate(steps):
                    loss = self.losses(part, place, step, values[batch]).mean()
                    (loss / (len(accumulated) * len(steps))).backward()
            torch.nn.utils.clip_grad_norm_(self.trained, self.settings.gradient_clip)
            self.optimiser.step()
            self.optimiser.zero_grad()

    def losses(self, part: Trajectories, place: int, step: int, values: Tensor) -> Tensor:
        """(n,) of edits at the `place`-th of their stochastic steps, which is `step` of the trajectory."""
        settings = self.settings
        now, mean, deviation = self.evaluate(part, place, step)
        losses = clipped_loss(probability_ratio(now, part.log_probs[:, place]), values, *self.grpo.ratio_clip)
        if settings.kl == 0:
            return losses
        with torch.no_grad(), self.editor.base():
            reference = self.evaluate(part, place, step)[1]
        return losses + settings.kl * gaussian_kl(mean, reference, deviation)

    def evaluate(self, part: Trajectories, place: int, step: int) -> tuple[Tensor, Tensor, float]:
        """Log-probability (n,) of a step as it was sampled, the mean that the editor gives it now, its deviation."""
        settings, before = self.settings, part.before[:, place]
        sigma, following = self.editor.sigmas(settings.sampling_steps, part.condition.size)[step : step + 2].tolist()
        v = self.editor.velocity(before, torch.full((len(before),), sigma), part.condition, settings.guidance)
        mean, deviation = STEPS[self.grpo.step](before, v, sigma, following, self.grpo.noise)
        assert isinstance(deviation, float)
        return log_prob(part.after[:, place], mean, deviation), mean, deviation

"""Flow-GRPO the way its published code does it, for the trainer to be held against: no more work, and no less.

What it does, after yifan123/flow_grpo (`train_flux_kontext.py`, `train_sd3_fast.py`):

- Each edit's text and source are encoded in its batch.
- The log-probabilities of stochastic steps are kept as they were sampled, and are not computed again.
- A batch goes to the judge in a thread while the next is sampled.
- Edits whose advantage is zero are left out. The others are shuffled and cut into as many batches as were sampled.
- Two optimiser steps an iteration, each over half of the batches and all trained steps of their edits.
- The frozen editor is asked only where the KL term has a weight.

Which steps are stochastic and trained, the settings say, as for the trainer: all but the last (`timestep_fraction` 0.99
of the published settings), or a window (Flow-GRPO-Fast). A batch, of sampling and of training, has `micro_batch` edits.
Editor, judge, noise, steps and losses are the trainer's; `PublishedKontext` is the editor with the published code's
passes.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.data.edits_file import EditRow
from editloop.data.picture_file import load_image
from editloop.models.editors.protocol import Conditioning, Editor, join_conditions
from editloop.models.editors.sampling import working_picture
from editloop.models.judge_protocol import EditGroup, Judge, Score
from editloop.training.editor_rl.advantages import compute_advantages
from editloop.training.editor_rl.algorithm_settings import FlowGrpoSettings
from editloop.training.editor_rl.policy_loss import clipped_loss, probability_ratio
from editloop.training.editor_rl.rollout import SAMPLING, noise_generators, slices, standard_normal_like
from editloop.training.editor_rl.sde import STEPS, draw_gaussian, gaussian_kl, log_prob
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.windows import trained_window


class Trajectories(NamedTuple):
    """N edits of one size at their W stochastic steps."""

    condition: Conditioning
    """N rows."""
    latents: Tensor
    """(N, S, C): the finished edits."""
    before: Tensor
    """(N, W, S, C): latents that each step began with."""
    after: Tensor
    """(N, W, S, C): what was drawn."""
    log_probs: Tensor
    """(N, W), as they were sampled."""

    def select(self, places: Tensor) -> "Trajectories":
        """The edits at `places` (n,)."""
        return Trajectories(self.condition.select(places), *(tensor[places] for tensor in self[1:]))


def joined(parts: Sequence[Trajectories]) -> Trajectories:
    """The edits of several batches."""
    condition = join_conditions([part.condition for part in parts])
    return Trajectories(condition, *(torch.cat([part[at] for part in parts]) for at in range(1, len(parts[0]))))


class PlainFlowGrpo:
    """A trainer of one process."""

    updates: ClassVar[int] = 2
    """Optimiser steps an iteration."""
    judges_in_a_thread: ClassVar[bool] = True
    trains_on_silent: ClassVar[bool] = False
    """Whether edits whose advantage is zero are trained on."""

    def __init__(self, editor: Editor, rows: Sequence[EditRow], judge: Judge, settings: RlSettings):
        self.editor, self.rows, self.judge, self.settings = editor, rows, judge, settings
        assert settings.adapter is not None
        self.trained = editor.add_adapter(settings.adapter.rank, settings.adapter.alpha, settings.targets or None)
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            self.trained, lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.encodings = 0

    def iteration(self, number: int) -> float:
        """Iteration `number` (from 0); returns the mean reward of its edits."""
        settings = self.settings
        pool = np.random.default_rng([settings.seed, number])
        tasks = pool.choice(len(self.rows), min(settings.tasks, len(self.rows)), replace=False).tolist()
        names = [(task, member) for member in range(settings.members) for task in tasks]
        sampled: list[Trajectories] = []
        asked: list[Callable[[], list[list[Score]]]] = []
        with ThreadPoolExecutor(1) as thread:
            for part in slices(len(names), settings.micro_batch):
                trajectories, groups = self.sample(number, names[part])
                sampled.append(trajectories)
                ask = partial(self.judge.judge, groups)
                asked.append(thread.submit(ask).result if self.judges_in_a_thread else ask)
            scores = [score.reward for answer in asked for (score,) in answer()]
        rewards = torch.tensor([float("nan") if reward is None else reward for reward in scores])
        by_task = rewards.view(settings.members, len(tasks)).T
        weighed = compute_advantages(by_task, settings.advantage_scale)
        counting = torch.isfinite(by_task) if self.trains_on_silent else weighed.counts
        places = counting.T.flatten().nonzero().flatten()
        shuffled = places[torch.randperm(len(places), generator=torch.Generator().manual_seed(number))]
        batches = [batch for batch in shuffled.tensor_split(len(sampled)) if len(batch)]
        self.train(number, names, joined(sampled), weighed.values.T.flatten().float(), batches)
        return float(rewards.nanmean())

    @property
    def grpo(self) -> FlowGrpoSettings:
        assert isinstance(self.settings.algorithm, FlowGrpoSettings)
        return self.settings.algorithm

    def trained_steps(self, number: int) -> range:
        """The steps of iteration `number` that are stochastic and trained."""
        grpo = self.grpo
        return trained_window(grpo.window_kind, number, self.settings.seed, size=grpo.window, reach=grpo.window_range)

    def encode(self, rows: Sequence[EditRow]) -> tuple[NDArray[np.uint8], Conditioning]:
        """Sources (N, height, width, 3) of tasks of one size, and their encodings."""
        sources = np.stack([working_picture(self.editor, load_image(row.source)) for row in rows])
        self.encodings += len(rows)
        return sources, self.editor.encode([row.instruction for row in rows], sources)

    @torch.no_grad()
    def sample(self, number: int, names: Sequence[tuple[int, int]]) -> tuple[Trajectories, list[EditGroup]]:
        """The (task, member) edits of a batch, of one size; and the questions to the judge, of one edit each."""
        editor, settings, steps = self.editor, self.settings, self.trained_steps(number)
        draws = noise_generators(settings, number, names, SAMPLING)
        rows = [self.rows[task] for task, _ in names]
        sources, condition = self.encode(rows)
        x = torch.cat([editor.noise(1, condition.size, one) for one in draws])
        kept: list[list[Tensor]] = [[], [], []]
        for place, (sigma, following) in enumerate(
            pairwise(editor.sigmas(settings.sampling_steps, condition.size).tolist())
        ):
            v = editor.velocity(x, torch.full((len(x),), sigma), condition, settings.guidance)
            if place not in steps:
                x = x + (following - sigma) * v
                continue
            mean, deviation = STEPS[self.grpo.step](x, v, sigma, following, self.grpo.noise)
            after = draw_gaussian(mean, deviation, standard_normal_like(x, draws))
            for values, value in zip(kept, (x, after, log_prob(after, mean, deviation)), strict=True):
                values.append(value)
            x = after
        pictures = editor.decode(x, condition.size)
        groups = [
            EditGroup(row.instruction, source, [picture], row.id)
            for row, source, picture in zip(rows, sources, pictures, strict=True)
        ]
        stacked = (torch.stack(values, 1) if values else x.new_zeros(len(x), 0) for values in kept)
        return Trajectories(condition, x, *stacked), groups

    def train(
        self,
        number: int,
        names: Sequence[tuple[int, int]],
        edits: Trajectories,
        values: Tensor,
        batches: Sequence[Tensor],
    ) -> None:
        """Train on batches of the edits, given by their places; values: the advantages of all edits (N,)."""
        steps = self.trained_steps(number)
        accumulated = -(-len(batches) // self.updates)
        for start in range(0, len(batches), accumulated or 1):
            together = batches[start : start + accumulated]
            for batch in together:
                part = edits.select(batch)
                for place, step in enumerate(steps):
                    loss = self.losses(part, place, step, values[batch]).mean()
                    (loss / (len(together) * len(steps))).backward()
            self.step()

    def step(self) -> None:
        """Make an optimiser step."""
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

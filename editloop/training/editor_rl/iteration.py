"""One iteration of online RL on one rank: sample edits, have them scored, compute advantages, update.

Judges score edits while the next ones are sampled. The update also needs velocities of the old policy and of the frozen
editor. Where a judge runs on another machine, they are computed while its rewards are awaited, for all edits. Otherwise
they are computed afterwards, only for the edits that are trained on, because judges on the same machine would only take
turns with them. Every edit counts alike, however ranks and passes share the edits.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor

from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor, join_conditions
from editloop.models.editors.sources import SourceSizes
from editloop.models.judge_protocol import EditGroup
from editloop.training.distributed import StopRequest, all_reduce_sum
from editloop.training.editor_rl.advantages import (
    Advantages,
    combine_advantages,
    solved,
    strongest_members,
    teachable,
)
from editloop.training.editor_rl.algorithm import RlAlgorithm, UpdateLevel
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.rollout import (
    Rollout,
    SamplingCost,
    decode_rollout,
    sample_rollout,
    slices,
)
from editloop.training.editor_rl.scoring import PendingRewards, RewardJudges
from editloop.training.editor_rl.settings import RlSettings
from editloop.training.editor_rl.update_passes import RolloutWork, passes_of
from editloop.training.editor_rl.update_steps import OptimiserStep, forward_batches, optimiser_steps

POLL_SECONDS = 0.2
"""How often a rank that waits for rewards checks for a request to stop."""


class Stopped(Exception):  # noqa: N818
    """The ranks were asked to stop while they waited for rewards."""


class JudgesFailedError(EditLoopError):
    """A judge failed for good. Every rank raises it, and the training is as it was before the iteration."""


class IterationSummary(NamedTuple):
    """Result of an iteration, the same on every rank."""

    figures: dict[str, float]
    """Finite figures by name. Without any reward there is no `reward`."""
    solved: list[int]
    """Tasks that this iteration found solved."""


class Iteration:
    """Editor, data and weights that the iterations of a training share."""

    def __init__(
        self,
        settings: RlSettings,
        editor: Editor,
        prompts: Prompts,
        reward_judges: RewardJudges,
        reward_weights: Mapping[str, float],
        engine: Any,
        algorithm: RlAlgorithm,
        stop: StopRequest,
        after_step: Callable[[int], None] = lambda steps: None,
    ):
        """Take what the iterations work with.

        Args:
            settings: The training's settings.
            editor: The editor to train.
            prompts: Tasks to practise.
            reward_judges: The judges whose scores are the reward.
            reward_weights: Weight of each judge's reward, by the judge's address.
            engine: DeepSpeed's engine around the editor's network.
            algorithm: The algorithm, around the same editor.
            stop: Says whether the ranks were asked to stop.
            after_step: Is called after each optimiser step with the number of steps so far. Steps without an edit to
                learn from are left out, but counted.
        """
        self.settings, self.editor, self.prompts, self.reward_judges = settings, editor, prompts, reward_judges
        self.reward_weights, self.engine, self.algorithm, self.stop = reward_weights, engine, algorithm, stop
        self.after_step = after_step
        self.steps = settings.optimiser_steps or algorithm.levels
        """Optimiser steps of an iteration."""
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        self.with_base = True
        self.counts = SamplingCost()
        self.reasons: Counter[str] = Counter()
        """Reasons for missing rewards so far, on this rank."""

    def run(self, iteration: int, left_out: set[int], *, measured: bool) -> IterationSummary:
        """Run one iteration. Every rank calls it.

        Args:
            iteration: The iteration, from 0.
            left_out: Solved tasks, which are not sampled.
            measured: Measure the distance to the base editor even where it is not part of the loss.

        Raises:
            JudgesFailedError: A judge cannot go on.
            Stopped: The ranks were asked to stop while they waited for rewards.
            EditLoopError: The loss is not finite.
        """
        began, before = time.perf_counter(), (self.counts.network, self.counts.shared, self.prompts.encodings)
        chosen = self.prompts.chosen(iteration, self.settings.tasks, left_out)
        size, edits = self.settings.forward_batch, len(chosen) * self.settings.members
        batches = forward_batches(edits, size, self.settings.seed, iteration)
        rollouts = self._sampled(iteration, chosen, batches)
        rolled = time.perf_counter()
        self.with_base = measured or self.settings.kl > 0
        ahead = None
        if self.reward_judges.elsewhere:
            ahead = [self._levels(rollout, iteration) for rollout, _ in rollouts]
        wait_began = time.perf_counter()
        rewards = self._rewards([pending for _, pending in rollouts], chosen, [rollout for rollout, _ in rollouts])
        waited = time.perf_counter() - wait_began
        groups = self._groups(chosen)
        advantages = combine_advantages(
            rewards,
            self.reward_weights,
            combination=self.settings.combination,
            scale=self.settings.advantage_scale,
            epsilon=self.settings.advantage_epsilon,
            groups=groups,
        )
        trained = self._trained(rewards, advantages, groups)
        plan = optimiser_steps(
            trained.flatten(),
            batches,
            count=self.settings.optimiser_steps,
            together=self.settings.forward_batch is not None,
            levels=self.algorithm.levels,
            levels_per_edit=self.algorithm.levels_per_edit,
        )
        learnt = self._update([rollout for rollout, _ in rollouts], ahead, iteration, chosen, advantages, plan)
        seconds = time.perf_counter() - began
        after = (self.counts.network, self.counts.shared, self.prompts.encodings)
        spent = all_reduce_sum([float(new - old) for new, old in zip(after, before, strict=True)])
        figures = {
            **_reward_figures(rewards, advantages),
            **learnt,
            "samples_per_second": advantages.values.numel() / seconds,
            "seconds": seconds,
            "sampling": rolled - began,
            "waiting": waited,
            "network_calls": spent[0],
            "shared_steps": spent[1],
            "encodings": spent[2],
        }
        figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        return IterationSummary(figures, self._solved(rewards, chosen, groups))

    def _groups(self, chosen: NDArray[Any]) -> Tensor | None:
        """Return the group of each task, (P,); None where each task is one."""
        if self.settings.group_by == "task":
            return None
        instructions = [self.prompts.rows[task].instruction for task in chosen]
        return torch.tensor([instructions.index(instruction) for instruction in instructions])

    def _trained(self, rewards: Mapping[str, Tensor], advantages: Advantages, groups: Tensor | None) -> Tensor:
        """Return which edits are trained on, bool (P, G)."""
        settings = self.settings
        trained = advantages.counts
        if settings.train_silent:
            trained = torch.stack([reward.isfinite() for reward in rewards.values()]).all(0)
        if settings.mask_solved:
            first = rewards[next(iter(self.reward_weights))]
            trained = trained & teachable(first, settings.solved_spread, settings.solved_mean, groups)[:, None]
        best_members = settings.best_members
        return strongest_members(advantages._replace(counts=trained), best_members) if best_members else trained

    def _solved(self, rewards: Mapping[str, Tensor], chosen: NDArray[Any], groups: Tensor | None) -> list[int]:
        """Return the tasks that this iteration found solved; grouped by instruction, all tasks that have it."""
        if not self.settings.solved_spread:
            return []
        first = rewards[next(iter(self.reward_weights))]
        is_solved = solved(first, self.settings.solved_spread, self.settings.solved_mean, groups)
        tasks = [int(chosen[index]) for index in is_solved.nonzero().flatten().tolist()]
        if groups is None:
            return tasks
        instructions = {self.prompts.rows[task].instruction for task in tasks}
        return [task for task, row in enumerate(self.prompts.rows) if row.instruction in instructions]

    def _sampled(self, iteration: int, chosen: NDArray[Any], batches: Tensor) -> list[tuple[Rollout, PendingRewards]]:
        """Sample this rank's tasks in parts, and send each part to the judges."""
        settings, mine = self.settings, [int(task) for task in chosen[self.rank :: self.ranks]]
        plan, sampled = self.algorithm.sampling_plan(iteration), []
        tasks_by_part = self._parts(mine)
        batches_of = dict(zip(chosen.tolist(), batches.view(len(chosen), settings.members), strict=True))
        self.prompts.encode(tasks_by_part, settings.micro_batch)
        with self.algorithm.sampling_weights(), self.editor.merged():
            for tasks in tasks_by_part:
                encoded_tasks = self.prompts.encoded_tasks(tasks)
                conditions = [encoded_task.condition for encoded_task in encoded_tasks]
                condition = join_conditions(conditions).to(self.editor.device)
                of_edits = torch.cat([batches_of[task] for task in tasks])
                rollout = sample_rollout(
                    settings, plan, self.editor, condition, tasks, iteration, self.counts, of_edits
                )
                edits = decode_rollout(self.editor, rollout, settings.micro_batch)
                rows, parts = [self.prompts.rows[task] for task in tasks], slices(len(edits), settings.members)
                groups = [
                    EditGroup(row.instruction, task.source, list(edits[part]), row.id, task.references)
                    for row, task, part in zip(rows, encoded_tasks, parts, strict=True)
                ]
                sampled.append((rollout, self.reward_judges.ask(groups)))
        return sampled

    def _parts(self, tasks: list[int]) -> list[list[int]]:
        """Return the tasks in about `chunks` parts, each of one size of the source and of each reference."""
        by_size: dict[SourceSizes, list[int]] = {}
        for task in tasks:
            by_size.setdefault(self.prompts.source_sizes[task], []).append(task)
        most = math.ceil(len(tasks) / self.settings.chunks)
        return [group[part] for group in by_size.values() for part in slices(len(group), most)]

    def _levels(self, rollout: Rollout, iteration: int) -> list[UpdateLevel]:
        return self.algorithm.update_levels(rollout, iteration, with_base=self.with_base)

    def _rewards(
        self, pending: list[PendingRewards], chosen: NDArray[Any], rollouts: list[Rollout]
    ) -> dict[str, Tensor]:
        """Return the rewards (P, G) of all ranks' tasks by judge, in the order of `chosen`; NaN where missing."""
        index_of = {int(task): index for index, task in enumerate(chosen)}
        shape = (len(chosen), self.settings.members)
        local_rewards = {name: torch.full(shape, torch.nan, dtype=torch.float64) for name in self.reward_weights}
        failure: EditLoopError | None = None
        try:
            for request, rollout in zip(pending, rollouts, strict=True):
                while not request.wait(POLL_SECONDS):
                    if self.stop.requested:
                        self.reward_judges.give_up()
                rows = torch.tensor([index_of[task] for task, member in rollout.names if member == 0])
                for name, answer in request.answers().items():
                    local_rewards[name][rows] = answer.rewards.double()
                    self.reasons.update(answer.missing)
        except EditLoopError as error:
            failure = error
        flat = torch.stack(list(local_rewards.values())).flatten()
        flags = [float(failure is not None), float(self.stop.requested)]
        sums = all_reduce_sum([*flat.nan_to_num(0.0).tolist(), *flat.isfinite().double().tolist(), *flags])
        if sums[-2]:
            messages: list[str | None] = [None] * self.ranks
            distributed.all_gather_object(messages, str(failure) if failure else None)
            if sums[-1]:
                raise Stopped
            raise JudgesFailedError(next(message for message in messages if message))
        values, present = torch.tensor(sums[:-2]).view(2, len(local_rewards), *shape)
        complete = torch.where(present > 0, values, torch.nan)
        return dict(zip(local_rewards, complete, strict=True))

    def _update(
        self,
        rollouts: list[Rollout],
        ahead: list[list[UpdateLevel]] | None,
        iteration: int,
        chosen: NDArray[Any],
        advantages: Advantages,
        plan: list[OptimiserStep],
    ) -> dict[str, float]:
        """Make the optimiser steps of `plan`. Return the means of the losses' figures, over edits and levels."""
        weights = torch.stack([step.weights for step in plan])
        count = int((weights > 0).any(0).sum())
        already = iteration * self.steps
        if not count:
            for number in range(self.steps):
                self.after_step(already + number + 1)
            return {"trained": 0.0}
        index_of = {int(task): index for index, task in enumerate(chosen)}
        work: list[RolloutWork] = []
        for index, rollout in enumerate(rollouts):
            positions = torch.tensor(
                [index_of[task] * self.settings.members + member for task, member in rollout.names]
            )
            levels = ahead[index] if ahead else []
            selected = (weights[:, positions] > 0).any(0).nonzero().flatten()
            if not ahead and len(selected):
                levels, positions = self._levels(rollout.subset(selected), iteration), positions[selected]
            advantage = advantages.values.flatten()[positions].float().to(rollout.latents.device)
            work.append(RolloutWork(levels, advantage, weights[:, positions]))
        passes = passes_of(work, plan, self.settings.micro_batch)
        spare = next((part.levels for part in work if part.levels), None)
        if spare is None:  # for passes of weight 0, which a rank makes while others still have edits
            spare = self._levels(rollouts[0].subset(torch.zeros(1, dtype=torch.long)), iteration)
        names = ["loss", *(["kl"] if self.with_base else []), *self.algorithm.figure_names]
        zero = torch.zeros((), dtype=torch.float64, device=rollouts[0].latents.device)
        sums = {name: zero.clone() for name in names}  # on the device: fetching one value would wait for it
        made = 0
        for number, step in enumerate(plan):
            loss = zero.clone()
            for level in step.levels:
                own, most = passes[number, level]
                for levels, advantage, weight, part in own:
                    losses = levels[level].losses(part, advantage[part])
                    weighted = losses.loss * weight[part].to(losses.loss)
                    self.engine.backward(weighted.sum() * (self.ranks / step.divisor))
                    loss += weighted.detach().sum()
                    for name, values in losses.figures.items():
                        sums[name] += values.sum()
                for _ in range(most - len(own)):
                    zero_advantage = torch.zeros(1, device=rollouts[0].latents.device)
                    losses = spare[level].losses(torch.zeros(1, dtype=torch.long), zero_advantage)
                    self.engine.backward(losses.loss.sum() * 0.0)
            if any(passes[number, level].most for level in step.levels):
                (total_loss,) = all_reduce_sum(loss[None])
                if not math.isfinite(total_loss):
                    raise EditLoopError(
                        f"training: the loss is {total_loss} in iteration {iteration + 1}. Nothing of it is kept, the "
                        f"last checkpoint is as it was. Lower learning_rate ({self.settings.learning_rate:g})."
                    )
                self.engine.step()
                sums["loss"] += loss / step.divisor
                made += 1
            self.after_step(already + number + 1)
        totals = all_reduce_sum(torch.stack(list(sums.values())))
        edits_and_levels = count * self.algorithm.levels_per_edit
        means = {name: value / edits_and_levels for name, value in zip(names, totals, strict=True)}
        means["loss"] = totals[0] / made
        figures = self.algorithm.finished_figures(means) | {"trained": float(count)}
        norm = self.engine.get_global_grad_norm()
        return figures | ({} if norm is None else {"gradient_norm": float(norm)})


def _reward_figures(rewards: Mapping[str, Tensor], advantages: Advantages) -> dict[str, float]:
    """Return figures of the rewards of all edits of an iteration."""
    every = torch.stack(list(rewards.values()))
    groups = advantages.values.shape[0]
    figures = {
        "reward": every.nanmean().item(),
        "spread": torch.stack([_deviation(row) for reward in rewards.values() for row in reward]).nanmean().item(),
        "silent_groups": advantages.silent / groups,
        "missing": advantages.missing / advantages.values.numel(),
    }
    if len(rewards) > 1:
        figures |= {f"reward_{name}": reward.nanmean().item() for name, reward in rewards.items()}
    return figures


def _deviation(row: Tensor) -> Tensor:
    present = row[row.isfinite()]
    return present.std(correction=0) if len(present) else torch.tensor(torch.nan, dtype=row.dtype)

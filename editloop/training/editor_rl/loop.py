"""Iterations of an online RL training: sampling and updates, moving averages, evaluation, and what ends it early.

Tasks, windows and noise follow from (seed, iteration). A checkpoint also holds the moving averages and what the
algorithm keeps, so a training that continues repeats what an unbroken one would have done.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
import torch.distributed as distributed
from torch import nn

from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor
from editloop.training.distributed import all_reduce_sum, broadcast_object
from editloop.training.editor_rl.build_algorithm import build_algorithm
from editloop.training.editor_rl.evaluator import Evaluator
from editloop.training.editor_rl.guards import Verdict
from editloop.training.editor_rl.iteration import Iteration, JudgesFailedError, Stopped
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.scoring import RewardJudges
from editloop.training.editor_rl.settings import RlJob
from editloop.training.editor_rl.trained_weights import TrainedWeights
from editloop.training.engine import enable_gradient_checkpointing, start_engine
from editloop.training.training_run import TrainingRun
from editloop.training.training_task import ParameterGroup

log = logging.getLogger(__name__)


class RlTrainingResult(NamedTuple):
    """Result of a finished training, the same on every rank."""

    history: dict[str, list[dict[str, float]]]
    """Records by list: `steps` and `evaluations`, each with its `step`, the `solved` tasks, and `ended` where the
    training stopped early. `evaluations` come last, because DVC draws the last list of a file."""
    reason: str
    """Why it stopped early; empty where it ran to its end."""


class Training:
    """One call of a training on one rank."""

    def __init__(
        self, job: RlJob, editor: Editor, trained: list[nn.Parameter], prompts: Prompts, reward_judges: RewardJudges
    ):
        """Start the engine, and load the newest checkpoint of an earlier call of the same training.

        Args:
            job: The training to run.
            editor: The editor to train.
            trained: Parameters of its network to train.
            prompts: Tasks to practise.
            reward_judges: The judges whose scores are the reward.

        Raises:
            EditLoopError: There are fewer tasks than ranks, another job trains in the folder, or its checkpoint belongs
                to another training.
        """
        self.job, self.settings, self.editor = job, job.settings, editor
        self.prompts, self.reward_judges = prompts, reward_judges
        ranks = distributed.get_world_size()
        if min(len(prompts), job.settings.tasks) < ranks:
            raise EditLoopError(
                f"{job.edits}: {len(prompts)} tasks to practise, {job.settings.tasks} an iteration, for {ranks} "
                "processes: each needs one. Give more tasks, or fewer processes."
            )
        judges = [[judge.name, judge.version, job.rewards[address]] for address, judge in reward_judges.judges.items()]

        if job.settings.gradient_checkpointing:
            enable_gradient_checkpointing(editor.network)
        if job.settings.compile:
            editor.compile_blocks()

        def start(universal: bool) -> Any:
            group = ParameterGroup(trained, 1.0)
            return start_engine(
                editor.network, [group], job.settings, passes=None, betas=job.settings.betas, universal=universal
            )

        self.training_run = TrainingRun(
            job.checkpoints,
            job.settings,
            job.facts,
            identity=[judges, [row.id for row in prompts.rows]],
            start_engine=start,
            lists=("solved", "ended"),
            unit="iteration",
        )
        self.weights = TrainedWeights(trained)
        self.algorithm = build_algorithm(self.settings, editor, self.weights)
        self.averages = self.weights.copy()
        self.training_run.keep_tensors(
            lambda: self.algorithm.state() | {f"average.{index}": value for index, value in enumerate(self.averages)}
        )

    def run(self, evaluator: Evaluator | None) -> RlTrainingResult:
        """Run the remaining iterations. Every rank calls it.

        Afterwards the editor has the averaged weights of the last iteration. Where a guard stopped the training, the
        best weights are in the checkpoints' folder.

        Args:
            evaluator: Rank 0's evaluator; None on other ranks, and on rank 0 to evaluate nothing.

        Raises:
            JudgesFailedError: A reward judge cannot go on. The state is saved.
            EditLoopError: Too many rewards are missing, or the loss is not finite.
            SystemExit: The job was asked to stop and has saved a checkpoint.
        """
        with self.training_run:
            try:
                self._go_on(evaluator)
            finally:
                self.reward_judges.close()
        self.weights.swap(self.averages)
        return RlTrainingResult(self.training_run.history, self.training_run.progress.reason)

    def _go_on(self, evaluator: Evaluator | None) -> None:
        settings, run, history = self.settings, self.training_run, self.training_run.history
        iterate = Iteration(
            settings,
            self.editor,
            self.prompts,
            self.reward_judges,
            self.job.rewards,
            run.engine,
            self.algorithm,
            run.stop,
            self._average_after,
        )
        if not history["evaluations"]:
            self._evaluate(evaluator)
        while run.step < settings.iterations and not history["ended"]:
            solved = {int(record["task"]) for record in history["solved"]}
            if len(self.prompts) - len(solved) < distributed.get_world_size():
                run.note_early_end(f"all but {len(self.prompts) - len(solved)} of {len(self.prompts)} tasks are solved")
                break
            step = run.step + 1
            is_evaluated = step == settings.iterations or step % settings.evaluate_every == 0
            try:
                done = iterate.run(run.step, solved, measured=is_evaluated)
            except Stopped:
                run.save()
                run.leave()
            except JudgesFailedError:
                run.save()
                raise
            self.algorithm.end_iteration(step * iterate.steps)
            if settings.ema_every is None:
                self.weights.ema_update(self.averages, min(settings.ema_decay, step / (9 + step)))
            history["solved"] += [{"step": step, "task": task} for task in done.solved]
            reward = f"{done.figures['reward']:.3f}" if "reward" in done.figures else "missing"
            summary = f"reward {reward}, {done.figures['samples_per_second']:.1f} samples/s"
            run.add_step(done.figures, total=settings.iterations, summary=summary)
            if is_evaluated:
                self._evaluate(evaluator)
            self._check_missing(iterate)
            (stop_asked,) = all_reduce_sum([float(run.stop.requested)])
            run.end_step(
                save=step % settings.checkpoint_every == 0,
                stop_asked=bool(stop_asked),
                done=step == settings.iterations or bool(history["ended"]),
            )

    def _average_after(self, steps: int) -> None:
        """Update the averages after this many optimiser steps, where they follow these: as Flow-GRPO's code does."""
        settings = self.settings
        if settings.ema_every is not None and (steps + 1) % settings.ema_every == 0:
            self.weights.ema_update(self.averages, min(settings.ema_decay, (1 + steps) / (10 + steps)))

    def _evaluate(self, evaluator: Evaluator | None) -> None:
        """Evaluate the averaged editor. Save its state if it is the best so far; end the training if a guard says
        so."""
        with self.weights.swapped(self.averages):
            training_means = self._means_since_evaluation()
            result = evaluator.evaluate(self.training_run.step, self.editor, training_means) if evaluator else None
            verdict: Verdict | None = broadcast_object(result)
            if verdict is None:
                return
            self.training_run.add_evaluation(
                verdict.figures,
                best=verdict.best,
                total=self.settings.iterations,
                summary=", ".join(f"{name} {value:.3f}" for name, value in verdict.figures.items() if "_" not in name),
            )
        if verdict.stop:
            self.training_run.note_early_end(verdict.reason)

    def _means_since_evaluation(self) -> dict[str, float]:
        """Return the means of the training's figures since the last evaluation."""
        evaluations = self.training_run.history["evaluations"]
        since = evaluations[-1]["step"] if evaluations else 0
        steps = [record for record in self.training_run.history["steps"] if record["step"] > since]
        names = {name for record in steps for name in record if name != "step"}
        return {name: float(np.mean([record[name] for record in steps if name in record])) for name in names}

    def _check_missing(self, iterate: Iteration) -> None:
        over = self.settings.missing_over
        lately = [record["missing"] for record in self.training_run.history["steps"][-over:]]
        if len(lately) == over and float(np.mean(lately)) > self.settings.most_missing:
            self.training_run.save()
            reasons: list[Any] = [None] * distributed.get_world_size()
            distributed.all_gather_object(reasons, iterate.reasons)
            summary = "; ".join(
                f"{count} x {reason}" for reason, count in sum(reasons, start=type(iterate.reasons)()).most_common(3)
            )
            raise EditLoopError(
                f"{np.mean(lately):.0%} of the rewards of the last {over} iterations are missing, more than "
                f"most_missing ({self.settings.most_missing:g}): {summary}. "
                "The state is saved: mend the judge and call again."
            )

"""Iterations of an online RL training: DeepSpeed, moving averages, evaluation, checkpoints, metrics.

No random state is carried from iteration to iteration: tasks, windows and noise follow from (seed, iteration). A
checkpoint is therefore weights, optimiser states, the moving averages, what the algorithm keeps, and the iteration's
number. A training that continues from it repeats what an unbroken training would have done.
"""

import time
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.distributed as distributed
from torch import Tensor, nn

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.models.editors.protocol import Editor
from editloop.training import checkpoint
from editloop.training.checkpoint import TrainingProgress
from editloop.training.distributed import StopRequest, all_reduce_sum, broadcast_object
from editloop.training.editor_rl.build_algorithm import build_algorithm
from editloop.training.editor_rl.evaluator import Verdict
from editloop.training.editor_rl.iteration import Iteration, JudgesFailedError, Stopped
from editloop.training.editor_rl.prompts import Prompts
from editloop.training.editor_rl.scoring import RewardJudges
from editloop.training.editor_rl.settings import SAME_RESULT, RlJob, RlSettings
from editloop.training.editor_rl.trained_weights import TrainedWeights
from editloop.training.folder_lock import lock_training_folder
from editloop.training.loop import PRINT_INTERVAL_SECONDS, STOPPED_STATUS
from editloop.training.memory_plan import BUCKET_ELEMENTS
from editloop.training.metric_log import MetricLog


class TrainingEvaluator(Protocol):
    """Evaluates and guards a training; implemented by editloop.training.editor_rl.evaluator."""

    def evaluate(self, iteration: int, editor: Editor, training: dict[str, float]) -> Verdict:
        """Evaluate the editor with its present weights.

        Args:
            iteration: Number of iterations done; 0 is before the first.
            editor: The editor, with the averaged weights swapped in.
            training: Means of the training's figures since the last evaluation.
        """
        ...


class RlTrainingResult(NamedTuple):
    """Result of a finished training, the same on every rank."""

    history: dict[str, list[dict[str, float]]]
    """Records by list: `steps` and `evaluations`, each with its `step`, the `solved` tasks, and `ended` where the
    training stopped early. `evaluations` come last, because DVC draws the last list of a file."""
    reason: str
    """Why it stopped early; empty where it ran to its end."""


def start_rl_engine(settings: RlSettings, network: nn.Module, trained: list[nn.Parameter], *, universal: bool) -> Any:
    """Return DeepSpeed's engine with AdamW. The caller makes any number of backward passes before each `step`.

    Args:
        settings: The training's settings.
        network: The editor's network.
        trained: The network's parameters to train.
        universal: Whether the engine will load a universal checkpoint.
    """
    import deepspeed

    optimiser = torch.optim.AdamW(
        trained, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=torch.cuda.is_available()
    )
    count = sum(parameter.numel() for parameter in trained)  # the default bucket takes 2 GB of a GPU in any case
    engine, *_ = deepspeed.initialize(
        model=network,
        optimizer=optimiser,
        config={
            "train_batch_size": distributed.get_world_size(),
            "train_micro_batch_size_per_gpu": 1,
            "managed_gradient_accumulation": False,
            "gradient_clipping": settings.gradient_clip,
            "zero_optimization": {"stage": settings.zero_stage, "reduce_bucket_size": min(BUCKET_ELEMENTS, count)},
            "zero_allow_untested_optimizer": True,
            "checkpoint": {"load_universal": universal},
            "steps_per_print": 2**31,
        },
    )
    return engine


def training_identity(job: RlJob, prompts: Prompts, reward_judges: RewardJudges) -> str:
    """Return the digest of a training: its settings, facts, judges and tasks.

    A checkpoint of another identity belongs to another training.

    Args:
        job: The training.
        prompts: Tasks to practise.
        reward_judges: The judges whose scores are the reward.
    """
    judges = [[judge.name, judge.version, job.rewards[address]] for address, judge in reward_judges.judges.items()]
    settings = job.settings.model_dump(mode="json", exclude=set(SAME_RESULT))
    return sha256_json([settings, job.facts, judges, [row.id for row in prompts.rows]])


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
        self.job, self.settings, self.editor, self.prompts, self.reward_judges = (
            job,
            job.settings,
            editor,
            prompts,
            reward_judges,
        )
        self.first, ranks = distributed.get_rank() == 0, distributed.get_world_size()
        if min(len(prompts), job.settings.tasks) < ranks:
            raise EditLoopError(
                f"{job.edits}: {len(prompts)} tasks to practise, {job.settings.tasks} an iteration, for {ranks} "
                "processes: each needs one. Give more tasks, or fewer processes."
            )
        job.checkpoints.mkdir(parents=True, exist_ok=True)
        lock_training_folder(job.checkpoints, first=self.first)
        self.identity = training_identity(job, prompts, reward_judges)
        newest_checkpoint = checkpoint.find_newest(job.checkpoints, self.settings.zero_stage, identity=self.identity)
        self.engine = start_rl_engine(
            self.settings,
            editor.network,
            trained,
            universal=newest_checkpoint is not None and newest_checkpoint.as_universal,
        )
        self.weights = TrainedWeights(trained)
        self.algorithm = build_algorithm(self.settings, editor, self.weights)
        self.averages = self.weights.copy()
        self.progress = TrainingProgress(0, {"solved": [], "ended": [], "steps": [], "evaluations": []})
        if newest_checkpoint:
            self.progress = checkpoint.load(self.engine, newest_checkpoint)
            extra_tensors = checkpoint.read_extra_tensors(newest_checkpoint)
            for name, tensor in self._extra_tensors().items():
                tensor.copy_(extra_tensors[name])
        self.reason = ""
        self._began, self._printed_at, self._from = time.monotonic(), time.monotonic(), self.progress.step

    def run(self, evaluator: TrainingEvaluator | None) -> RlTrainingResult:
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
        metric_log = None
        if self.first:
            setting_values = self.settings.model_dump(mode="json")
            metric_log = MetricLog(self.job.checkpoints, self.progress.step, setting_values, self.job.facts)
        try:
            with StopRequest() as stop:
                self._go_on(evaluator, metric_log, stop)
        finally:
            self.reward_judges.close()
            if metric_log:
                metric_log.close()
        self.weights.swap(self.averages)
        return RlTrainingResult(self.progress.history, self.reason)

    def _go_on(self, evaluator: TrainingEvaluator | None, metric_log: MetricLog | None, stop: StopRequest) -> None:
        settings, history = self.settings, self.progress.history
        iterate = Iteration(
            settings,
            self.editor,
            self.prompts,
            self.reward_judges,
            self.job.rewards,
            self.engine,
            self.algorithm,
            stop,
        )
        if not history["evaluations"]:
            self._evaluate(evaluator, metric_log)
        while self.progress.step < settings.iterations and not history["ended"]:
            solved = {int(record["task"]) for record in history["solved"]}
            if len(self.prompts) - len(solved) < distributed.get_world_size():
                self._end(f"all but {len(self.prompts) - len(solved)} of {len(self.prompts)} tasks are solved")
                break
            step = self.progress.step + 1
            is_evaluated = step == settings.iterations or step % settings.evaluate_every == 0
            try:
                done = iterate.run(self.progress.step, solved, measured=is_evaluated)
            except Stopped:
                self._leave()
            except JudgesFailedError:
                self._save()
                raise
            self.algorithm.end_iteration()
            self.weights.ema_update(self.averages, min(settings.ema_decay, step / (9 + step)))
            history["steps"].append({"step": step, **done.figures})
            history["solved"] += [{"step": step, "task": task} for task in done.solved]
            self.progress = TrainingProgress(step, history)
            self._report(done.figures, metric_log)
            last = step == settings.iterations
            if is_evaluated:
                self._evaluate(evaluator, metric_log)
            self._check_missing(iterate)
            (stop_requested,) = all_reduce_sum([float(stop.requested)])
            if last or stop_requested or history["ended"] or step % settings.checkpoint_every == 0:
                self._save()
            if stop_requested and not last and not history["ended"]:
                self._leave(saved=True)

    def _evaluate(self, evaluator: TrainingEvaluator | None, metric_log: MetricLog | None) -> None:
        """Evaluate the averaged editor. Save its state if it is the best so far; end the training if a guard says
        so."""
        step, history = self.progress.step, self.progress.history
        with self.weights.swapped(self.averages):
            verdict: Verdict | None = broadcast_object(
                evaluator.evaluate(step, self.editor, self._lately()) if evaluator else None
            )
            if verdict is None:
                return
            if verdict.best:
                checkpoint.save_best(self.engine, self.job.checkpoints, step)
        history["evaluations"].append({"step": step, **verdict.figures})
        if metric_log:
            metric_log.add(step, {f"evaluation_{name}": value for name, value in verdict.figures.items()})
            scores = ", ".join(f"{name} {value:.3f}" for name, value in verdict.figures.items() if "_" not in name)
            print(f"evaluation after {step}/{self.settings.iterations}: {scores}", flush=True)
        if verdict.stop:
            self._end(verdict.reason)

    def _end(self, reason: str) -> None:
        self.reason = reason
        self.progress.history["ended"].append({"step": self.progress.step})
        if self.first:
            print(f"stopped after iteration {self.progress.step}: {reason}", flush=True)

    def _lately(self) -> dict[str, float]:
        """Return the means of the training's figures since the last evaluation."""
        evaluations = self.progress.history["evaluations"]
        since = evaluations[-1]["step"] if evaluations else 0
        steps = [record for record in self.progress.history["steps"] if record["step"] > since]
        names = {name for record in steps for name in record if name != "step"}
        return {name: float(np.mean([record[name] for record in steps if name in record])) for name in names}

    def _check_missing(self, iterate: Iteration) -> None:
        over = self.settings.missing_over
        lately = [record["missing"] for record in self.progress.history["steps"][-over:]]
        if len(lately) == over and float(np.mean(lately)) > self.settings.most_missing:
            self._save()
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

    def _leave(self, *, saved: bool = False) -> None:
        if not saved:
            self._save()
        if self.first:
            print(f"stopped at iteration {self.progress.step} and saved; the same call goes on", flush=True)
        raise SystemExit(STOPPED_STATUS)

    def _save(self) -> None:
        checkpoint.save(
            self.engine,
            self.job.checkpoints,
            self.progress,
            identity=self.identity,
            checkpoints_kept=self.settings.checkpoints_kept,
            extra_tensors=self._extra_tensors(),
        )

    def _extra_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a checkpoint holds besides the engine's states."""
        return self.algorithm.state() | {f"average.{index}": value for index, value in enumerate(self.averages)}

    def _report(self, figures: dict[str, float], metric_log: MetricLog | None) -> None:
        if metric_log is None:
            return
        metric_log.add(self.progress.step, figures)
        if time.monotonic() - self._printed_at > PRINT_INTERVAL_SECONDS:
            self._printed_at = time.monotonic()
            pace = (time.monotonic() - self._began) / (self.progress.step - self._from)
            left = pace * (self.settings.iterations - self.progress.step)
            reward = f"{figures['reward']:.3f}" if "reward" in figures else "missing"
            print(
                f"iteration {self.progress.step}/{self.settings.iterations}: reward {reward}, "
                f"{figures['samples_per_second']:.1f} samples/s, {_minutes(left)} left",
                flush=True,
            )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""Training loop shared by all models: DeepSpeed, checkpoints, evaluation, early stopping, metrics.

No random state is carried from step to step: the order of units follows from (seed, epoch), dropout from (seed, step,
rank). A checkpoint is therefore weights, optimiser states and a step number, and a training that continues from it
repeats no draw and skips none.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.training import checkpoint
from editloop.training.checkpoint import TrainingProgress
from editloop.training.distributed import StopRequest, all_reduce_sum, broadcast_object, device, seed_step, to_device
from editloop.training.engine import set_learning_rate, start_engine
from editloop.training.folder_lock import lock_training_folder
from editloop.training.metric_log import MetricLog
from editloop.training.peak_memory import peak_megabytes
from editloop.training.prefetch import Prefetch
from editloop.training.schedule import TrainingSchedule, learning_rate
from editloop.training.settings import TrainingSettings
from editloop.training.training_task import Batch, TrainingTask

log = logging.getLogger(__name__)

RESUMABLE_SETTINGS = (
    "checkpoints_kept",
    "checkpoint_every",
    "micro_batch",
    "zero_stage",
    "offload",
    "gradient_checkpointing",
)
"""Settings that are not part of a training's identity, because they do not change its result. Between a stopped call
and the one that continues it, all but `zero_stage` may change; checkpoints refuse another ZeRO stage."""
STOPPED_STATUS = 75
"""Exit status of a rank that saved after a request to stop (sysexits' "try again")."""
PRINT_INTERVAL_SECONDS = 10.0
"""Least time between two lines of progress."""


class TrainingOutcome(NamedTuple):
    """Result of a finished training, the same on every rank."""

    state: Path
    """safetensors file of the trainable parameters in fp32, by the names of `TrainingTask.model.named_parameters()`,
    from the evaluation with the lowest validation loss."""
    history: dict[str, list[dict[str, float]]]
    """`steps` ({step, loss, learning_rate, ...}) and `evaluations` ({step, loss, ...})."""


def train(task: TrainingTask, settings: TrainingSettings, folder: Path, *, facts: dict[str, object]) -> TrainingOutcome:
    """Train a task's model on the ranks of this job. Every rank calls it.

    A call with the same settings and facts continues at the newest checkpoint in `folder`. Its losses are those of an
    unbroken training, up to rounding.

    Args:
        task: The model and its data.
        settings: The training's settings.
        folder: Folder of checkpoints, metrics and the best state. Created where missing.
        facts: What is trained on, such as digests of the dataset and the base. Other facts are another training.

    Returns:
        The best state and the history.

    Raises:
        EditLoopError: A split has no units, another job trains in `folder`, its checkpoint belongs to another training,
            or a loss or gradient is not finite.
        SystemExit: The job was asked to stop and has saved a checkpoint; the status is STOPPED_STATUS.
    """
    counts = {split: task.count(split) for split in ("train", "validation")}
    if not all(counts.values()):
        raise EditLoopError(f"training units {counts}: both splits need some. Split the data anew or collect more.")
    ranks, first = distributed.get_world_size(), distributed.get_rank() == 0
    schedule = TrainingSchedule.of(settings, counts["train"], ranks)
    identity = sha256_json([settings.model_dump(mode="json", exclude=set(RESUMABLE_SETTINGS)), facts, counts])
    folder.mkdir(parents=True, exist_ok=True)
    lock_training_folder(folder, first=first)
    saved_checkpoint = checkpoint.find_newest(folder, settings.zero_stage, identity=identity)
    engine = start_engine(
        task, settings, schedule.passes, universal=saved_checkpoint is not None and saved_checkpoint.as_universal
    )
    progress = (
        checkpoint.load(engine, saved_checkpoint)
        if saved_checkpoint
        else TrainingProgress(0, {"steps": [], "evaluations": []})
    )
    run = _Run(task, settings, folder, identity, schedule, engine, progress)
    metric_log = MetricLog(folder, progress.step, settings.model_dump(mode="json"), facts) if first else None
    try:
        with StopRequest() as stop:
            run.go_on(stop, metric_log)
    finally:
        if metric_log:
            metric_log.close()
    engine.destroy()
    return TrainingOutcome(broadcast_object(checkpoint.best_state(folder) if first else None), run.progress.history)


class _Run:
    """Steps of one call of `train`."""

    def __init__(
        self,
        task: TrainingTask,
        settings: TrainingSettings,
        folder: Path,
        identity: str,
        schedule: TrainingSchedule,
        engine: Any,
        progress: TrainingProgress,
    ):
        self.task, self.settings, self.folder, self.identity = task, settings, folder, identity
        self.schedule, self.engine, self.progress = schedule, engine, progress
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        self.printed_at = time.monotonic()

    def go_on(self, stop: StopRequest, metric_log: MetricLog | None) -> None:
        evaluations = self.progress.history["evaluations"]
        if not evaluations:
            self._evaluate(metric_log)
        batches = Prefetch(self._makers())
        try:
            prefetched = iter(batches)
            while self.progress.step < self.schedule.total and not self._patience_is_over():
                began, waited = time.perf_counter(), batches.waited_seconds
                units, passes = next(prefetched)
                step_figures = self._step(units, passes)
                seconds = time.perf_counter() - began
                edits, stop_asked = all_reduce_sum([sum(batch.edits for batch in passes), stop.requested])
                figures = {
                    "step": self.progress.step + 1,
                    **step_figures,
                    "learning_rate": learning_rate(self.settings, self.progress.step, self.schedule.total),
                    "edits_per_second": edits / seconds,
                    "waiting": (batches.waited_seconds - waited) / seconds,
                }
                self.progress.history["steps"].append(figures)
                self.progress = self.progress._replace(step=self.progress.step + 1)
                self._report(figures, metric_log)
                done = self.progress.step == self.schedule.total
                if done or self._due(self.settings.evaluate_every):
                    self._evaluate(metric_log)
                if done or stop_asked or self._due(self.settings.checkpoint_every):
                    self._save()
                if stop_asked and not done:
                    if self.rank == 0:
                        log.info("stopped at step %d and saved; the same call goes on", self.progress.step)
                    raise SystemExit(STOPPED_STATUS)
        finally:
            batches.close()

    def _makers(self) -> Iterator[Callable[[], tuple[NDArray[np.int64], list[Batch]]]]:
        for step in range(self.progress.step, self.schedule.total):
            yield partial(self._make, step)

    def _make(self, step: int) -> tuple[NDArray[np.int64], list[Batch]]:
        units = self.schedule.units_of(step, self.settings.seed)
        return units, [self._pass("train", units, pass_index) for pass_index in range(self.schedule.passes)]

    def _pass(self, split: Any, units: NDArray[np.int64], pass_index: int) -> Batch:
        """Return this rank's batch of one pass. A rank without units left repeats one with weight 0."""
        rank_units = self.schedule.rank_units(units, pass_index, self.rank, self.ranks)
        if len(rank_units):
            return self.task.batch(split, rank_units.tolist())
        return self.task.batch(split, units[:1].tolist())._replace(weight=0.0, edits=0)

    def _step(self, units: NDArray[np.int64], passes: list[Batch]) -> dict[str, float]:
        """Make one optimiser step. Return the batch's loss, and the norm of its gradient where the engine has it.

        Every unit counts by its weight alone, however passes and ranks share the units.
        """
        step, task, settings = self.progress.step, self.task, self.settings
        set_learning_rate(self.engine, learning_rate(settings, step, self.schedule.total))
        (total_weight,) = all_reduce_sum([sum(batch.weight for batch in passes)])
        self.engine.train()
        seed_step(settings.seed, step)
        sums = torch.zeros(2, dtype=torch.float64, device=device())  # the loss, and the number of those not finite
        for pass_index, batch in enumerate(passes):
            loss = task.loss(self.engine, batch._replace(tensors=to_device(batch.tensors)))
            share = batch.weight / total_weight if total_weight else 0.0
            # DeepSpeed averages over ranks and passes; the shares of all of them sum to 1.
            self.engine.backward(loss * (share * self.ranks * len(passes)))
            value = loss.detach().double()
            sums += torch.stack([value * share, (~value.isfinite()).double()])
            if pass_index + 1 < len(passes):
                self.engine.step()
        loss_all, nonfinite_all = all_reduce_sum(sums)
        if nonfinite_all:
            self._refuse(f"loss is {loss_all}", units)
        self.engine.step()
        engine_norm = self.engine.get_global_grad_norm()
        if engine_norm is None:
            return {"loss": loss_all}
        norm = float(engine_norm)
        if not math.isfinite(norm):
            self._refuse(f"the gradient's norm is {norm}", units)
        return {"loss": loss_all, "gradient_norm": norm}

    def _refuse(self, fault: str, units: NDArray[np.int64]) -> None:
        names = ", ".join(self.task.name("train", int(unit)) for unit in units[:8])
        more = f" and {len(units) - 8} more" if len(units) > 8 else ""
        raise EditLoopError(
            f"training: {fault} at step {self.progress.step + 1}, on {names}{more}. Nothing of this step is kept; the "
            f"last checkpoint in {self.folder} is as it was. Lower learning_rate ({self.settings.learning_rate:g}) or "
            f"gradient_clip ({self.settings.gradient_clip:g}), or look at these units."
        )

    def _due(self, every: int | None) -> bool:
        return self.progress.step % (every or self.schedule.epoch) == 0

    @torch.no_grad()
    def _evaluate(self, metric_log: MetricLog | None) -> None:
        """Measure the validation split on all ranks, and save the state if it is the best so far."""
        units = np.arange(self.task.count("validation"))
        passes = -(-len(units) // (self.ranks * self.schedule.micro))
        self.engine.eval()
        sums: dict[str, Tensor] = {}
        for batch in Prefetch(partial(self._pass, "validation", units, pass_index) for pass_index in range(passes)):
            for name, value in self.task.measure(self.engine, batch._replace(tensors=to_device(batch.tensors))).items():
                counted = torch.as_tensor(value if batch.edits else 0.0, dtype=torch.float64, device=device())
                sums[name] = sums[name] + counted if name in sums else counted
        names = sorted(sums)
        totals = all_reduce_sum(torch.stack([sums[name] for name in names]))
        figures = self.task.figures(dict(zip(names, totals, strict=True)))
        if not math.isfinite(figures["loss"]):
            raise EditLoopError(
                f"validation loss is {figures['loss']} after step {self.progress.step}. Lower learning_rate "
                f"({self.settings.learning_rate:g}); the last checkpoint in {self.folder} is as it was."
            )
        evaluations = self.progress.history["evaluations"]
        if figures["loss"] < min((evaluation["loss"] for evaluation in evaluations), default=math.inf):
            checkpoint.save_best(self.engine, self.folder, self.progress.step)
        evaluation = {"step": self.progress.step, **figures, "peak_megabytes": peak_megabytes()}
        evaluations.append(evaluation)
        if metric_log:
            metric_log.add(
                self.progress.step, {f"validation_{key}": value for key, value in evaluation.items() if key != "step"}
            )
            summary = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
            log.info("step %d/%d: validation %s", self.progress.step, self.schedule.total, summary)

    def _patience_is_over(self) -> bool:
        losses = [evaluation["loss"] for evaluation in self.progress.history["evaluations"]]
        best = losses.index(min(losses))
        return self.settings.patience is not None and len(losses) - 1 - best >= self.settings.patience

    def _save(self) -> None:
        checkpoint.save(
            self.engine,
            self.folder,
            self.progress,
            identity=self.identity,
            checkpoints_kept=self.settings.checkpoints_kept,
        )

    def _report(self, figures: dict[str, float], metric_log: MetricLog | None) -> None:
        if metric_log is None:
            return
        metric_log.add(self.progress.step, {key: value for key, value in figures.items() if key != "step"})
        if time.monotonic() - self.printed_at > PRINT_INTERVAL_SECONDS:
            self.printed_at = time.monotonic()
            log.info(
                "step %d/%d: loss %.4g, %.1f edits/s",
                self.progress.step,
                self.schedule.total,
                figures["loss"],
                figures["edits_per_second"],
            )

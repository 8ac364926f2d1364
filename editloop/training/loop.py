"""Loop of supervised training, shared by all models that learn from data: steps, evaluations, early stopping.

The order of units follows from (seed, epoch), dropout from (seed, step, rank). The losses of a training that continues
from a checkpoint are those of an unbroken one, up to rounding.
"""

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as distributed
from numpy.typing import NDArray
from torch import Tensor

from editloop.errors import EditLoopError
from editloop.training import checkpoint
from editloop.training.distributed import (
    all_reduce_sum,
    broadcast_object,
    device,
    ranks_on_machine,
    seed_step,
    to_device,
)
from editloop.training.engine import enable_gradient_checkpointing, set_learning_rate, start_engine, uses_bf16
from editloop.training.peak_memory import peak_megabytes
from editloop.training.prefetch import Prefetch, loader_threads
from editloop.training.schedule import TrainingSchedule, learning_rate
from editloop.training.settings import TrainingSettings
from editloop.training.training_run import TrainingRun
from editloop.training.training_task import Batch, TrainingTask


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
    schedule = TrainingSchedule.of(settings, counts["train"], distributed.get_world_size())
    if settings.gradient_checkpointing:
        enable_gradient_checkpointing(task.model)

    def start(universal: bool) -> Any:
        return start_engine(
            task.model,
            task.parameter_groups(),
            settings,
            passes=schedule.passes,
            offload=settings.offload,
            bf16=uses_bf16(settings),
            universal=universal,
        )

    run = TrainingRun(folder, settings, facts, identity=[counts], start_engine=start)
    with run:
        _SupervisedLoop(task, settings, schedule, run).go_on()
    run.engine.destroy()
    return TrainingOutcome(broadcast_object(checkpoint.best_state(folder) if run.is_first else None), run.history)


class _SupervisedLoop:
    """Steps of one call of `train`."""

    def __init__(self, task: TrainingTask, settings: TrainingSettings, schedule: TrainingSchedule, run: TrainingRun):
        self.task, self.settings, self.schedule, self.run, self.engine = task, settings, schedule, run, run.engine
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()

    def go_on(self) -> None:
        run, total = self.run, self.schedule.total
        if not run.history["evaluations"]:
            self._evaluate()
        a_step = self.schedule.passes
        makers = (partial(self._train_pass, step, index) for step in range(run.step, total) for index in range(a_step))
        with self._prefetch(makers, a_step) as batches:
            prefetched = iter(batches)
            while run.step < total and not self._patience_is_over():
                began, waited = time.perf_counter(), batches.waited_seconds
                passes = list(islice(prefetched, a_step))
                step_figures = self._step(passes)
                seconds = time.perf_counter() - began
                edits, stop_asked = all_reduce_sum([sum(batch.edits for batch in passes), run.stop.requested])
                figures = {
                    **step_figures,
                    "learning_rate": learning_rate(self.settings, run.step, total),
                    "edits_per_second": edits / seconds,
                    "waiting": (batches.waited_seconds - waited) / seconds,
                }
                summary = f"loss {figures['loss']:.4g}, {figures['edits_per_second']:.1f} edits/s"
                run.add_step(figures, total=total, summary=summary)
                done = run.step == total
                if done or self._due(self.settings.evaluate_every):
                    self._evaluate()
                run.end_step(save=self._due(self.settings.checkpoint_every), stop_asked=bool(stop_asked), done=done)

    def _prefetch(self, makers: Iterable[Callable[[], Batch]], passes: int) -> Prefetch[Batch]:
        """Return batches made ahead: those of the next step, and one in each thread."""
        threads = self.settings.loader_threads or loader_threads(ranks_on_machine())
        return Prefetch(makers, threads=threads, ahead=passes + threads)

    def _train_pass(self, step: int, pass_index: int) -> Batch:
        return self._pass("train", self.schedule.units_of(step, self.settings.seed), pass_index)

    def _pass(self, split: Any, units: NDArray[np.int64], pass_index: int) -> Batch:
        """Return this rank's batch of one pass. A rank without units left repeats one with weight 0."""
        rank_units = self.schedule.rank_units(units, pass_index, self.rank, self.ranks)
        if len(rank_units):
            return self.task.batch(split, rank_units.tolist())
        return self.task.batch(split, units[:1].tolist())._replace(weight=0.0, edits=0)

    def _step(self, passes: list[Batch]) -> dict[str, float]:
        """Make one optimiser step. Return the batch's loss, and the norm of its gradient where the engine has it.

        Every unit counts by its weight alone, however passes and ranks share the units.
        """
        step, task, settings = self.run.step, self.task, self.settings
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
            self._refuse(f"loss is {loss_all}")
        self.engine.step()
        engine_norm = self.engine.get_global_grad_norm()
        if engine_norm is None:
            return {"loss": loss_all}
        norm = float(engine_norm)
        if not math.isfinite(norm):
            self._refuse(f"the gradient's norm is {norm}")
        return {"loss": loss_all, "gradient_norm": norm}

    def _refuse(self, fault: str) -> None:
        units = self.schedule.units_of(self.run.step, self.settings.seed)
        names = ", ".join(self.task.name("train", int(unit)) for unit in units[:8])
        more = f" and {len(units) - 8} more" if len(units) > 8 else ""
        raise EditLoopError(
            f"training: {fault} at step {self.run.step + 1}, on {names}{more}. Nothing of this step is kept; the "
            f"last checkpoint in {self.run.folder} is as it was. Lower learning_rate "
            f"({self.settings.learning_rate:g}) or gradient_clip ({self.settings.gradient_clip:g}), or look at these "
            "units."
        )

    def _due(self, every: int | None) -> bool:
        return self.run.step % (every or self.schedule.epoch) == 0

    @torch.no_grad()
    def _evaluate(self) -> None:
        """Measure the validation split on all ranks, and save the state if it is the best so far."""
        units = np.arange(self.task.count("validation"))
        passes = -(-len(units) // (self.ranks * self.schedule.micro))
        self.engine.eval()
        sums: dict[str, Tensor] = {}
        with self._prefetch((partial(self._pass, "validation", units, index) for index in range(passes)), 1) as batches:
            for batch in batches:
                on_device = batch._replace(tensors=to_device(batch.tensors))
                for name, value in self.task.measure(self.engine, on_device).items():
                    counted = torch.as_tensor(value if batch.edits else 0.0, dtype=torch.float64, device=device())
                    sums[name] = sums[name] + counted if name in sums else counted
        names = sorted(sums)
        totals = all_reduce_sum(torch.stack([sums[name] for name in names]))
        figures = self.task.figures(dict(zip(names, totals, strict=True)))
        if not math.isfinite(figures["loss"]):
            raise EditLoopError(
                f"validation loss is {figures['loss']} after step {self.run.step}. Lower learning_rate "
                f"({self.settings.learning_rate:g}); the last checkpoint in {self.run.folder} is as it was."
            )
        losses = [evaluation["loss"] for evaluation in self.run.history["evaluations"]]
        self.run.add_evaluation(
            figures | {"peak_megabytes": peak_megabytes()},
            best=figures["loss"] < min(losses, default=math.inf),
            total=self.schedule.total,
            summary=", ".join(f"{name} {value:.4g}" for name, value in figures.items()),
        )

    def _patience_is_over(self) -> bool:
        losses = [evaluation["loss"] for evaluation in self.run.history["evaluations"]]
        best = losses.index(min(losses))
        return self.settings.patience is not None and len(losses) - 1 - best >= self.settings.patience

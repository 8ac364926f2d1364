"""One training loop for every model: DeepSpeed, checkpoints, evaluation, early stopping, curves.

Nothing random is carried from step to step: the order follows from (seed, epoch), dropout from (seed, step, rank). So a
checkpoint is weights, optimiser states and a step number, and going on from it repeats no draw and skips none.
"""

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

from components.training import checkpoint
from components.training.checkpoint import Progress
from components.training.course import Course, learning_rate
from components.training.curves import Curves
from components.training.engine import set_learning_rate, start_engine
from components.training.folder_lock import hold
from components.training.lesson import Batch, Lesson
from components.training.peak import peak_megabytes
from components.training.prefetch import Prefetch
from components.training.ranks import StopRequest, agreed, moved, seed_step, total
from components.training.settings import TrainingSettings
from infra.content import sha256_json
from infra.errors import EditLoopError

SAME_LOSSES = ("keep", "checkpoint_every", "micro_batch", "zero_stage", "offload", "gradient_checkpointing")
"""Settings that may change between a stop and the call that goes on: they do not change what is computed."""
STOPPED = 75
"""Exit status of a rank that was asked to stop and has saved (sysexits' "try again")."""
PACE_SECONDS = 10.0


class Trained(NamedTuple):
    """What a finished training leaves, on every rank."""

    state: Path
    """safetensors file of the trainable parameters, fp32, by the names of `lesson.model.named_parameters()`, from the
    evaluation with the lowest validation loss."""
    history: dict[str, list[dict[str, float]]]
    """`steps` ({step, loss, learning_rate, ...}) and `evaluations` ({step, loss, ...})."""


def train(lesson: Lesson, settings: TrainingSettings, folder: Path, *, facts: dict[str, object]) -> Trained:
    """Train `lesson.model` on the ranks of this job; every rank calls it.

    `folder` holds checkpoints, curves and the best state; a call with the same settings and `facts` (what is trained
    on: digests, base) goes on at its newest checkpoint, with the losses of an unbroken training but for rounding.
    Raises EditLoopError where the loss is not finite, or SystemExit after SIGTERM has been answered with a checkpoint.
    """
    counts = {split: lesson.count(split) for split in ("train", "validation")}
    if not all(counts.values()):
        raise EditLoopError(f"training units {counts}: both splits need some. Split the data anew or collect more.")
    ranks, first = distributed.get_world_size(), distributed.get_rank() == 0
    course = Course.of(settings, counts["train"], ranks)
    identity = sha256_json([settings.model_dump(mode="json", exclude=set(SAME_LOSSES)), facts, counts])
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder, first=first)
    found = checkpoint.newest(folder, settings.zero_stage, identity=identity)
    engine = start_engine(lesson, settings, course.passes, universal=found is not None and found.as_universal)
    progress = checkpoint.load(engine, found) if found else Progress(0, {"steps": [], "evaluations": []})
    run = _Run(lesson, settings, folder, identity, course, engine, progress)
    curves = Curves(folder, progress.step, settings.model_dump(mode="json"), facts) if first else None
    try:
        with StopRequest() as stop:
            run.go_on(stop, curves)
    finally:
        if curves:
            curves.close()
    engine.destroy()
    return Trained(agreed(checkpoint.best_state(folder) if first else None), run.progress.history)


class _Run:
    """The steps of one call of `train`."""

    def __init__(
        self, lesson: Lesson, settings: TrainingSettings, folder: Path, identity: str, course: Course, engine: Any,
        progress: Progress,
    ):  # fmt: skip
        self.lesson, self.settings, self.folder, self.identity = lesson, settings, folder, identity
        self.course, self.engine, self.progress = course, engine, progress
        self.rank, self.ranks = distributed.get_rank(), distributed.get_world_size()
        self.told = time.monotonic()

    def go_on(self, stop: StopRequest, curves: Curves | None) -> None:
        evaluations = self.progress.history["evaluations"]
        if not evaluations:
            self._evaluate(curves)
        batches = Prefetch(self._makers())
        try:
            ahead = iter(batches)
            while self.progress.step < self.course.total and not self._patience_is_over():
                began, waited = time.perf_counter(), batches.waited
                units, passes = next(ahead)
                loss = self._step(units, passes)
                seconds = time.perf_counter() - began
                edits, asked = total([sum(one.edits for one in passes), stop.asked])
                figures = {
                    "step": self.progress.step + 1, "loss": loss,
                    "learning_rate": learning_rate(self.settings, self.progress.step, self.course.total),
                    "edits_per_second": edits / seconds, "waiting": (batches.waited - waited) / seconds,
                }  # fmt: skip
                norm = self.engine.get_global_grad_norm()
                if norm is not None:
                    figures["gradient_norm"] = float(norm)
                self.progress.history["steps"].append(figures)
                self.progress = self.progress._replace(step=self.progress.step + 1)
                self._tell(figures, curves)
                done = self.progress.step == self.course.total
                if done or self._due(self.settings.evaluate_every):
                    self._evaluate(curves)
                if done or asked or self._due(self.settings.checkpoint_every):
                    self._save()
                if asked and not done:
                    if self.rank == 0:
                        print(f"stopped at step {self.progress.step} and saved; the same call goes on", flush=True)
                    raise SystemExit(STOPPED)
        finally:
            batches.close()

    def _makers(self) -> Iterator[Callable[[], tuple[NDArray[np.int64], list[Batch]]]]:
        for step in range(self.progress.step, self.course.total):
            yield partial(self._make, step)

    def _make(self, step: int) -> tuple[NDArray[np.int64], list[Batch]]:
        units = self.course.units_of(step, self.settings.seed)
        return units, [self._pass("train", units, place) for place in range(self.course.passes)]

    def _pass(self, split: Any, units: NDArray[np.int64], place: int) -> Batch:
        """This rank's batch of pass `place`. Without a unit left for it, it computes one again that does not count."""
        start = (place * self.ranks + self.rank) * self.course.micro
        mine = units[start : start + self.course.micro]
        if len(mine):
            return self.lesson.batch(split, mine.tolist())
        return self.lesson.batch(split, units[:1].tolist())._replace(weight=0.0, edits=0)

    def _step(self, units: NDArray[np.int64], passes: list[Batch]) -> float:
        """One optimiser step; returns the batch's loss. Each unit counts alike, however passes and ranks share them."""
        step, lesson, settings = self.progress.step, self.lesson, self.settings
        set_learning_rate(self.engine, learning_rate(settings, step, self.course.total))
        (whole,) = total([sum(one.weight for one in passes)])
        self.engine.train()
        seed_step(settings.seed, step)
        part, spoilt = 0.0, 0
        for place, one in enumerate(passes):
            loss = lesson.loss(self.engine, one._replace(tensors=moved(one.tensors)))
            share = one.weight / whole if whole else 0.0
            # DeepSpeed averages over ranks and passes; the shares of all of them sum to 1.
            self.engine.backward(loss * (share * self.ranks * len(passes)))
            value = float(loss.detach())
            spoilt += not math.isfinite(value)
            part += value * share
            if place + 1 < len(passes):
                self.engine.step()
        loss_all, spoilt_all = total([part, spoilt])
        if spoilt_all:
            self._refuse(f"loss is {loss_all}", units)
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        if norm is not None and not math.isfinite(float(norm)):
            self._refuse(f"the gradient's norm is {float(norm)}", units)
        return loss_all

    def _refuse(self, what: str, units: NDArray[np.int64]) -> None:
        names = ", ".join(self.lesson.name("train", int(unit)) for unit in units[:8])
        more = f" and {len(units) - 8} more" if len(units) > 8 else ""
        raise EditLoopError(
            f"training: {what} at step {self.progress.step + 1}, on {names}{more}. Nothing of this step is kept; the "
            f"last checkpoint in {self.folder} is as it was. Lower learning_rate ({self.settings.learning_rate:g}) or "
            f"clip ({self.settings.clip:g}), or look at these units."
        )

    def _due(self, every: int | None) -> bool:
        return self.progress.step % (every or self.course.epoch) == 0

    @torch.no_grad()
    def _evaluate(self, curves: Curves | None) -> None:
        """Measure the validation split on all ranks; keep the state where it is the best so far."""
        units = np.arange(self.lesson.count("validation"))
        rounds = -(-len(units) // (self.ranks * self.course.micro))
        self.engine.eval()
        sums: dict[str, float] = {}
        for one in Prefetch(partial(self._pass, "validation", units, place) for place in range(rounds)):
            for name, value in self.lesson.measure(self.engine, one._replace(tensors=moved(one.tensors))).items():
                sums[name] = sums.get(name, 0.0) + (value if one.edits else 0.0)
        names = sorted(sums)
        found = self.lesson.figures(dict(zip(names, total([sums[name] for name in names]), strict=True)))
        if not math.isfinite(found["loss"]):
            raise EditLoopError(
                f"validation loss is {found['loss']} after step {self.progress.step}. Lower learning_rate "
                f"({self.settings.learning_rate:g}); the last checkpoint in {self.folder} is as it was."
            )
        evaluations = self.progress.history["evaluations"]
        if found["loss"] < min((one["loss"] for one in evaluations), default=math.inf):
            checkpoint.keep_best(self.engine, self.folder, self.progress.step)
        entry = {"step": self.progress.step, **found, "peak_megabytes": peak_megabytes()}
        evaluations.append(entry)
        if curves:
            curves.add(
                self.progress.step, {f"validation_{key}": value for key, value in entry.items() if key != "step"}
            )
            told = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            print(f"step {self.progress.step}/{self.course.total}: validation {told}", flush=True)

    def _patience_is_over(self) -> bool:
        losses = [one["loss"] for one in self.progress.history["evaluations"]]
        best = losses.index(min(losses))
        return self.settings.patience is not None and len(losses) - 1 - best >= self.settings.patience

    def _save(self) -> None:
        checkpoint.save(self.engine, self.folder, self.progress, identity=self.identity, keep=self.settings.keep)

    def _tell(self, figures: dict[str, float], curves: Curves | None) -> None:
        if curves is None:
            return
        curves.add(self.progress.step, {key: value for key, value in figures.items() if key != "step"})
        if time.monotonic() - self.told > PACE_SECONDS:
            self.told = time.monotonic()
            print(
                f"step {self.progress.step}/{self.course.total}: loss {figures['loss']:.4g}, "
                f"{figures['edits_per_second']:.1f} edits/s",
                flush=True,
            )

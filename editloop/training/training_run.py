"""What every training has, supervised or online RL: an engine, checkpoints, metrics, progress and requests to stop.

A training carries no random state from step to step. A checkpoint is therefore weights, optimiser states, the tensors
that the training keeps beside them, and the step and history. A training that continues from it repeats no draw and
skips none.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, Self

import torch.distributed as distributed
from torch import Tensor

from editloop.content import sha256_json
from editloop.training import checkpoint
from editloop.training.checkpoint import TrainingProgress
from editloop.training.distributed import StopRequest
from editloop.training.folder_lock import lock_training_folder
from editloop.training.metric_log import MetricLog
from editloop.training.settings import RunSettings

log = logging.getLogger(__name__)

STOPPED_STATUS = 75
"""Exit status of a rank that saved after a request to stop (sysexits' "try again")."""
PRINT_INTERVAL_SECONDS = 10.0
"""Least time between two lines of progress."""


class TrainingRun:
    """One call of a training on one rank. Inside its `with` block the metric log is open and signals only ask to stop.

    Every rank makes the same calls.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        facts: dict[str, Any],
        *,
        identity: list[Any],
        start_engine: Callable[[bool], Any],
        lists: tuple[str, ...] = (),
        unit: str = "step",
    ):
        """Lock the folder, start the engine, and load the newest checkpoint of an earlier call of the same training.

        Args:
            folder: Folder of checkpoints and metrics. Created where missing.
            settings: The training's settings.
            facts: What is trained on, such as digests of the dataset and the base. Other facts are another training.
            identity: Whatever else makes it another training, as JSON.
            start_engine: Starts DeepSpeed's engine; it is told whether that will load a universal checkpoint.
            lists: Names of the history's lists besides `steps` and `evaluations`.
            unit: What a step is called in lines of progress.

        Raises:
            EditLoopError: Another job trains in the folder, or its checkpoint belongs to another training.
        """
        self.folder, self.settings, self.facts, self.unit = folder, settings, facts, unit
        self.is_first = distributed.get_rank() == 0
        self.identity = sha256_json([settings.identity(), facts, *identity])
        folder.mkdir(parents=True, exist_ok=True)
        lock_training_folder(folder, first=self.is_first)
        self.loaded = checkpoint.find_newest(folder, settings.zero_stage, identity=self.identity)
        self.engine = start_engine(self.loaded is not None and self.loaded.as_universal)
        self.progress = (
            checkpoint.load(self.engine, self.loaded)
            if self.loaded
            else TrainingProgress(0, {name: [] for name in (*lists, "steps", "evaluations")})
        )
        self.extra_tensors: Callable[[], dict[str, Tensor]] = dict
        self.stop = StopRequest()
        self.metric_log: MetricLog | None = None
        self._began = self._printed_at = time.monotonic()
        self._first_step = self.progress.step

    def __enter__(self) -> Self:
        if self.is_first:
            settings = self.settings.model_dump(mode="json")
            self.metric_log = MetricLog(self.folder, self.progress.step, settings, self.facts)
        self.stop.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.__exit__(*exception)
        if self.metric_log:
            self.metric_log.close()

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.progress.step

    @property
    def history(self) -> dict[str, list[dict[str, float]]]:
        """Records by list: `steps`, `evaluations` and those of the training's own, each with its `step`."""
        return self.progress.history

    def keep_tensors(self, extra_tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Store tensors with each checkpoint, and give them the values of the one that was loaded.

        Args:
            extra_tensors: Returns the tensors by name, the same on all ranks.
        """
        self.extra_tensors = extra_tensors
        if self.loaded:
            saved_tensors = checkpoint.read_extra_tensors(self.loaded)
            for name, tensor in extra_tensors().items():
                tensor.copy_(saved_tensors[name])

    def add_step(self, figures: dict[str, float], *, total: int, summary: str) -> None:
        """Count a step as done, record its figures, and now and then log a line of progress.

        Args:
            figures: The step's figures by name.
            total: Number of steps of the whole training.
            summary: The figures that the line shows.
        """
        step = self.step + 1
        self.history["steps"].append({"step": step, **figures})
        self.progress = self.progress._replace(step=step)
        if self.metric_log is None:
            return
        self.metric_log.add(step, figures)
        now = time.monotonic()
        if now - self._printed_at > PRINT_INTERVAL_SECONDS:
            self._printed_at = now
            left = (now - self._began) / (step - self._first_step) * (total - step)
            log.info("%s %d/%d: %s, %s left", self.unit, step, total, summary, _duration(left))

    def add_evaluation(self, figures: dict[str, float], *, best: bool, total: int, summary: str) -> None:
        """Record an evaluation of the present weights.

        Args:
            figures: Measured values by name.
            best: Whether these weights are the best so far, so that they are kept.
            total: Number of steps of the whole training.
            summary: The values that its line in the log shows.
        """
        if best:
            checkpoint.save_best(self.engine, self.folder, self.step)
        self.history["evaluations"].append({"step": self.step, **figures})
        if self.metric_log:
            self.metric_log.add(self.step, {f"validation_{name}": value for name, value in figures.items()})
            log.info("%s %d/%d: validation %s", self.unit, self.step, total, summary)

    def note_early_end(self, reason: str) -> None:
        """Note that the training ends at this step, for its checkpoint and its result.

        Args:
            reason: Why.
        """
        self.progress = self.progress._replace(reason=reason)
        self.history["ended"].append({"step": self.step})
        if self.is_first:
            log.info("stopped after %s %d: %s", self.unit, self.step, reason)

    def end_step(self, *, save: bool, stop_asked: bool, done: bool) -> None:
        """Save a checkpoint where one is due, and leave where a rank was asked to stop.

        Args:
            save: Whether a checkpoint is due.
            stop_asked: Whether any rank was asked to stop.
            done: Whether the training is over, so that it ends as usual.

        Raises:
            SystemExit: The training was asked to stop and has saved a checkpoint; the status is STOPPED_STATUS.
        """
        if save or stop_asked or done:
            self.save()
        if stop_asked and not done:
            self.leave()

    def save(self) -> None:
        """Write a checkpoint of the steps done."""
        checkpoint.save(
            self.engine,
            self.folder,
            self.progress,
            identity=self.identity,
            checkpoints_kept=self.settings.checkpoints_kept,
            extra_tensors=self.extra_tensors(),
        )

    def leave(self) -> NoReturn:
        """End the rank after a checkpoint was saved.

        Raises:
            SystemExit: Always, with STOPPED_STATUS.
        """
        if self.is_first:
            log.info("stopped at %s %d and saved; the same call goes on", self.unit, self.step)
        raise SystemExit(STOPPED_STATUS)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""Trainings of reward models by the shipped loop, on this process as the only rank."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch.distributed as distributed
from torch import Tensor

from editloop.training.distributed import start_rank
from editloop.training.edit_reward.train import RewardTrainingTask
from editloop.training.loop import train
from editloop.training.presets import Preset
from editloop.training.reward_job import TrainingJob
from editloop.training.training_run import STOPPED_STATUS
from editloop.training.training_task import Batch
from tests.gpu.machine import forget_peak, peak_gib
from tests.measured_training import Drawn

VALIDATION_GROUPS = 1
COUNTED_FROM = 1
"""The first steps, in which kernels are chosen, do not count."""


def one_rank() -> None:
    """Join a job of one process, if this one is in none yet."""
    if distributed.is_initialized():
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ |= {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    start_rank()


def lesson_of(model: Any, preset: Preset, kind: type[RewardTrainingTask] = RewardTrainingTask) -> RewardTrainingTask:
    """Drawn groups of the preset's load for a model: a batch a step."""
    job = TrainingJob(
        dataset=Path(), output=Path(), checkpoints=Path(), base="", preset=preset, training=preset.training, facts={}
    )
    side = round(preset.load.pixels**0.5)
    splits: dict[Any, Any] = {
        "train": Drawn(preset.training.batch, preset.load.candidates, side),
        "validation": Drawn(VALIDATION_GROUPS, preset.load.candidates, side),
    }
    return kind(model, splits, job)


class Measured(NamedTuple):
    """A training that was run."""

    edits_per_second: float
    waiting: float
    """Share of the time that the model waited for its data."""
    peak_gib: float
    history: dict[str, list[dict[str, float]]]


def run_training(make: Callable[[], Any], preset: Preset, folder: Path) -> Measured:
    """Train what `make` gives from its first step to its last, and free its memory."""
    one_rank()
    forget_peak()
    history = train(lesson_of(make(), preset), preset.training, folder, facts={}).history
    steps = history["steps"][COUNTED_FROM:] or history["steps"]
    speed, waiting = (median(step[name] for step in steps) for name in ("edits_per_second", "waiting"))
    peak = peak_gib()
    forget_peak()
    return Measured(speed, waiting, peak, history)


class StoppedLesson(RewardTrainingTask):
    """A lesson in whose second step the process is asked to stop, as a scheduler does it."""

    passes = 0

    def loss(self, engine: Any, batch: Batch) -> Tensor:
        self.passes += 1
        if self.passes == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().loss(engine, batch)


def run_until_stopped(make: Callable[[], Any], preset: Preset, folder: Path) -> None:
    """Train until the signal of `StoppedLesson` has been answered with a checkpoint."""
    one_rank()
    try:
        train(lesson_of(make(), preset, StoppedLesson), preset.training, folder, facts={})
    except SystemExit as stopped:
        if stopped.code != STOPPED_STATUS:
            raise
    else:
        raise RuntimeError("the training went on after SIGTERM")
    forget_peak()

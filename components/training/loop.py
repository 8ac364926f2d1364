"""One training loop for every model: DeepSpeed, checkpoints, evaluation, early stopping, curves."""

from pathlib import Path
from typing import NamedTuple

from components.training.lesson import Lesson
from components.training.settings import TrainingSettings


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
    on: digests, base) goes on at its newest checkpoint, with the same losses as if it had never been stopped. Raises
    EditLoopError where the loss is not finite, or SystemExit after SIGTERM has been answered with a checkpoint.
    """
    raise NotImplementedError

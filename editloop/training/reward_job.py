"""Job file of a reward model's training, which its ranks read."""

from pathlib import Path
from typing import Any

from editloop.training.job import JobFile
from editloop.training.presets import Preset
from editloop.training.settings import TrainingSettings


class TrainingJob(JobFile):
    """Training of EditReward or EditScore. `output` becomes a model folder."""

    dataset: Path
    """Dataset folder. The splits `train` and `validation` are used."""
    base: str
    """Model that the training starts from: a folder, or the name of a shipped model."""
    preset: Preset
    training: TrainingSettings
    """Training settings: the preset's with the stage's parameters in them."""
    facts: dict[str, Any]
    """What the model was trained on, recorded in its manifest."""

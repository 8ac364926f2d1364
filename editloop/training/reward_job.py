"""What the ranks of a training are told, by file."""

from pathlib import Path
from typing import Any

from editloop.training.job import JobFile
from editloop.training.presets import Preset
from editloop.training.settings import TrainingSettings


class TrainingJob(JobFile):
    """One training of either reward model; `output` becomes a model folder."""

    dataset: Path
    """Dataset folder: the splits `train` and `validation` are used."""
    base: str
    """What it starts from: a folder, or the name of a model that ships."""
    preset: Preset
    training: TrainingSettings
    """The preset's, with the stage's own words in them."""
    facts: dict[str, Any]
    """Kept in the model's manifest: what it was trained on."""

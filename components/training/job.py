"""What the ranks of a training are told, by file."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.training.presets import Preset
from components.training.settings import TrainingSettings


class TrainingJob(BaseModel):
    """One training of either model."""

    model_config = ConfigDict(extra="forbid")

    dataset: Path
    """Dataset folder: the splits `train` and `validation` are used."""
    output: Path
    """The model folder to write."""
    checkpoints: Path
    """Where checkpoints lie while it lasts."""
    base: str
    """What it starts from: a folder, or the name of a model that ships."""
    preset: Preset
    training: TrainingSettings
    """The preset's, with the stage's own words in them."""
    facts: dict[str, Any]
    """Kept in the model's manifest: what it was trained on."""

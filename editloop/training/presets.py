"""Presets: settings of whole reward model trainings as YAML files.

Shipped presets are in `presets/`. A path to another file works as well.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.errors import EditLoopError
from editloop.settings_file import FrozenModel, find_preset, preset_names, read_settings
from editloop.training.architecture import Architecture
from editloop.training.settings import TrainingSettings


class Load(FrozenModel):
    """Size of the largest unit that a training meets, for the memory estimate."""

    candidates: int = Field(ge=1)
    """Edits per unit: the candidates of a group (EditReward); 1 for a row of EditScore."""
    references: int = Field(0, ge=0, le=MOST_REFERENCES)
    """Reference images of a task, besides its source."""
    pixels: int = Field(ge=1)
    """Pixels of an image as the model sees it."""
    text_tokens: int = Field(ge=1)
    """Tokens of a rubric or question, the instruction included."""
    answer_tokens: int = Field(0, ge=0)
    """Tokens of the answer that is learnt (EditScore)."""


PRESETS = Path(__file__).with_name("presets")
"""Those that ship."""


class Preset(FrozenModel):
    """A reward model, its base, and its training."""

    model: Literal["edit-reward", "edit-score"]
    base: str
    """Base of the training: the name of a model that ships with EditLoop, or of a model on a hub. EditLoop downloads
    nothing: for a hub model pass your local folder as the stage's `base`."""
    ships: bool = False
    """Whether the base ships with EditLoop."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """The model's own settings (RewardSettings or EditScoreSettings), used where the base is a bare backbone."""
    loss: str = "expected-log"
    """EditReward: a name in editloop.training.edit_reward.losses.LOSSES."""
    target: Literal["axes", "fused"] = "axes"
    """EditReward: whether each axis's head learns that axis's order, or the fused score learns the overall order."""
    training: TrainingSettings
    load: Load
    architecture: Architecture

    @model_validator(mode="after")
    def _of_this_model(self) -> Self:
        fields = type(self).model_fields
        changed_fields = [name for name in ("loss", "target") if getattr(self, name) != fields[name].default]
        if self.model == "edit-score" and changed_fields:
            raise ValueError(
                f"{', '.join(changed_fields)}: EditScore learns to write answers; only EditReward has these"
            )
        if self.model == "edit-score" and not self.load.answer_tokens:
            raise ValueError("load.answer_tokens is 0: EditScore learns from the tokens of its answers")
        return self

    def changed(self, *, epochs: int = 0, learning_rate: float = 0.0, seed: int = 0) -> TrainingSettings:
        """Return the training settings with a stage's parameters in them.

        Args:
            epochs: Epochs in place of the preset's `epochs` or `steps`; 0 keeps the preset's.
            learning_rate: Learning rate in place of the preset's; 0 keeps the preset's.
            seed: Seed, always in place of the preset's.
        """
        overrides: dict[str, Any] = {"seed": seed}
        if epochs:
            overrides |= {"epochs": epochs, "steps": None}
        if learning_rate:
            overrides["learning_rate"] = learning_rate
        return TrainingSettings.model_validate(self.training.model_dump() | overrides)


def reward_presets() -> list[str]:
    """Return the names of the presets that ship, sorted."""
    return preset_names(PRESETS)


def load_preset(name: str) -> Preset:
    """Read a preset of a reward model.

    Args:
        name: The name of a shipped preset, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such preset, or it is not valid.
    """
    return read_settings(Preset, find_preset(name, PRESETS, "preset"), "preset")


def choose_base(preset: Preset, base: str) -> str:
    """Return the model that a training starts from.

    Args:
        preset: The preset, whose base is the default.
        base: A model folder or the name of a shipped model; empty for the preset's base.

    Raises:
        EditLoopError: `base` is empty and the preset's base does not ship with EditLoop.
    """
    if not base and not preset.ships:
        raise EditLoopError(
            f"base: this preset starts from {preset.base}, which EditLoop does not download. Give your local folder of "
            "it as `base`."
        )
    return base or preset.base

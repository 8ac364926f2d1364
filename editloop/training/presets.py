"""Presets: whole trainings as YAML files. Those that ship lie in `presets/`; a path to another file will do as well."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from editloop.errors import EditLoopError
from editloop.settings_file import find_preset, preset_names, read_settings
from editloop.training.architecture import Architecture
from editloop.training.settings import TrainingSettings


class Load(BaseModel):
    """How large a unit is, for the plan of memory: what a training meets at its fullest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidates: int = Field(ge=1)
    """Edits a unit: the candidates of a group (EditReward); 1 for a row of EditScore."""
    pixels: int = Field(ge=1)
    """Of a picture as the model sees it."""
    text_tokens: int = Field(ge=1)
    """A rubric or question, with the instruction."""
    answer_tokens: int = Field(0, ge=0)
    """Tokens learnt to be written (EditScore)."""


PRESETS = Path(str(files("editloop.training"))) / "presets"
"""Those that ship."""


class Preset(BaseModel):
    """A model, its base, and its training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["edit-reward", "edit-score"]
    base: str
    """What the training starts from: the name of a model that ships with EditLoop, or of one on a model hub. EditLoop
    downloads nothing: for the latter give your local folder of it as `base` to the stage."""
    ships: bool = False
    """Whether the base ships with EditLoop."""
    settings: dict[str, Any] = {}
    """The model's own settings (RewardSettings or EditScoreSettings) where the base is a bare backbone."""
    loss: str = "expected-log"
    """EditReward: a name of editloop.training.edit_reward.losses.LOSSES."""
    target: Literal["axes", "fused"] = "axes"
    """EditReward: whether each axis's head learns its axis's order, or the fused score the overall order."""
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
        """The training settings with a stage's own words in them; 0 leaves what the preset says."""
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
    """What a training starts from: `told` where given. EditLoopError where a local folder must be given and is not."""
    if not base and not preset.ships:
        raise EditLoopError(
            f"base: this preset starts from {preset.base}, which EditLoop does not download. Give your local folder of "
            "it as `base`."
        )
    return base or preset.base

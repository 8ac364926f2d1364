"""Presets: whole trainings as YAML files. Those that ship lie in `presets/`; a path to another file will do as well."""

from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editloop.errors import EditLoopError, there_are
from editloop.training.architecture import Architecture
from editloop.training.settings import TrainingSettings
from editloop.yaml_file import read_yaml


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


def preset_names() -> list[str]:
    """Names of the presets that ship."""
    return sorted(path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.name.endswith(".yaml"))


def load_preset(name: str) -> Preset:
    """A preset by its name, or by the path of a YAML file of one. EditLoopError where it is not there or not valid."""
    path = _shipped() / f"{name}.yaml"
    if "/" in name or name.endswith((".yaml", ".yml")):
        path = Path(name)
    if not path.is_file():
        raise EditLoopError(f"preset {name!r}: no such file or name; {there_are(name, preset_names())}")
    try:
        return Preset.model_validate(read_yaml(path))
    except ValidationError as error:
        raise EditLoopError(f"preset {path}: {error}") from error


def choose_base(preset: Preset, base: str) -> str:
    """What a training starts from: `told` where given. EditLoopError where a local folder must be given and is not."""
    if not base and not preset.ships:
        raise EditLoopError(
            f"base: this preset starts from {preset.base}, which EditLoop does not download. Give your local folder of "
            "it as `base`."
        )
    return base or preset.base


def _shipped() -> Path:
    return Path(str(files("editloop.training"))) / "presets"

"""What an editor works with: sizes, text, guidance, steps, the layers that an adapter goes to. Light: no torch.

An editor's folder may bring its own, `editor.json`; else those of its class's preset in `presets/` hold.
"""

from importlib.resources import files
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from editloop.errors import EditLoopError, there_are
from editloop.yaml_file import read_yaml

Size = tuple[int, int]
"""(height, width) in pixels."""
SETTINGS = "editor.json"
"""In a pipeline's folder: its settings."""


class EditorSettings(BaseModel):
    """How an editor is used, in sampling and in training."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: str
    """The diffusers class that these settings are for."""
    area: int = Field(ge=64)
    """Pixels of a picture as the editor sees it: sources are resized to about as many, their shape kept."""
    sizes: tuple[Size, ...] = ()
    """Where given, only these (height, width) are worked at: each source takes the one nearest in shape."""
    text_tokens: int = Field(0, ge=0)
    """Tokens of an instruction; longer ones are cut. 0 where the text encoder takes any length."""
    text_layers: tuple[int, ...] = ()
    """FLUX.2: the layers of the text encoder whose states are the encoding."""
    seen_area: int = Field(0, ge=0)
    """Qwen-Image-Edit: pixels of the source as the text encoder sees it."""
    negative: str = ""
    """The instruction that guidance by two passes compares with."""
    guidance: float = Field(1.0, ge=1.0)
    """Guidance in sampling, in the editor's own kind; 1 is none."""
    steps: int = Field(ge=1)
    """Denoising steps as published."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Ends of the names of the layers that an adapter goes to."""

    @model_validator(mode="after")
    def _sizes_are_sizes(self) -> Self:
        if any(min(size) < 1 for size in self.sizes):
            raise ValueError(f"sizes: {self.sizes}: a height and a width are at least 1 pixel")
        return self


def editor_presets() -> list[str]:
    """Names of the presets that ship."""
    return sorted(path.name.removesuffix(".yaml") for path in _shipped().iterdir() if path.name.endswith(".yaml"))


def read_editor_preset(name: str) -> EditorSettings:
    """A preset by its name. EditLoopError where there is none or it is not valid."""
    path = _shipped() / f"{name}.yaml"
    if not path.is_file():
        raise EditLoopError(f"editor preset {name!r}: no such name; {there_are(name, editor_presets())}")
    return _validated(path, read_yaml(path))


def read_own_settings(folder: Path) -> EditorSettings | None:
    """The settings in an editor's folder; None where it brings none. EditLoopError where they are not valid."""
    path = folder / SETTINGS
    return _validated(path, read_yaml(path)) if path.is_file() else None


def _validated(path: Path, raw_settings: object) -> EditorSettings:
    try:
        return EditorSettings.model_validate(raw_settings)
    except ValidationError as error:
        raise EditLoopError(f"editor settings {path}: {error}") from error


def _shipped() -> Path:
    return Path(str(files("editloop.models.editors"))) / "presets"

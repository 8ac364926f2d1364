"""Settings of an editor: image sizes, text, guidance, steps, and the layers that an adapter goes to. Imports no torch.

An editor's folder may contain its own settings, `editor.json`. Otherwise its class's preset in `presets/` applies.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.settings_file import FrozenModel, find_preset, read_settings

Size = tuple[int, int]
"""(height, width) in pixels."""
SETTINGS = "editor.json"
"""Name of the settings file in a pipeline's folder."""


PRESETS = Path(__file__).with_name("presets")
"""Those that ship."""


class EditorSettings(FrozenModel):
    """Settings of an editor, for sampling and for training."""

    pipeline: str
    """The diffusers pipeline class that these settings are for."""
    area: int = Field(ge=64)
    """Pixels of an image as the editor sees it. Sources are resized to about this many pixels with their aspect
    ratio kept."""
    sizes: tuple[Size, ...] = ()
    """The only sizes, (height, width), that the editor works at; each source takes the nearest in aspect ratio.
    Empty allows any size."""
    text_tokens: int = Field(0, ge=0)
    """Tokens of an instruction; longer ones are cut. 0 where the text encoder takes any length."""
    text_layers: tuple[int, ...] = ()
    """FLUX.2: the layers of the text encoder whose states form the encoding."""
    seen_area: int = Field(0, ge=0)
    """Qwen-Image-Edit: pixels of the source as the text encoder sees it."""
    seen_pixels: tuple[int, int] = (0, 0)
    """Step1X-Edit: fewest and most pixels of the source as the text encoder sees it."""
    most_references: int | None = Field(None, ge=0, le=MOST_REFERENCES)
    """Most reference images of a task, besides its source. Null takes as many as the editor's class does."""
    longest_side: int = Field(0, ge=0)
    """OmniGen2: most pixels of a side. 0 means any."""
    preamble: str = ""
    """The fixed text that the release says to its text encoder: OmniGen2's system message, and the text before the
    instruction in Step1X-Edit. The presets have none: copy it from the release's code."""
    preamble_tokens: int = Field(0, ge=0)
    """Step1X-Edit: tokens up to the end of the preamble. Their states are left out of the encoding."""
    release: Literal["", "v1.0", "v1.1", "v1.2"] = ""
    """Step1X-Edit: the release, which decides positions and text."""
    negative: str = ""
    """The instruction with which two-pass guidance compares."""
    guidance: float = Field(1.0, ge=1.0)
    """Guidance scale in sampling, in the editor's own kind of guidance; 1 means none."""
    image_guidance: float = Field(1.0, ge=1.0)
    """OmniGen2: scale of the guidance towards the source, where `guidance` is above 1; 1 means none."""
    guidance_range: tuple[float, float] = (0.0, 1.0)
    """OmniGen2: first and last share of the steps that are guided, both ends included."""
    rescale_above: float = Field(1.0, ge=0.0, le=1.0)
    """Step1X-Edit: above this noise level, guidance is reduced where it is large. 1 means never, 0 always."""
    steps: int = Field(ge=1)
    """Denoising steps, as published for the model."""
    targets: tuple[str, ...] = Field(min_length=1)
    """Endings of the names of the layers that an adapter goes to."""

    @model_validator(mode="after")
    def _sizes_and_ranges_are_such(self) -> Self:
        if any(min(size) < 1 for size in self.sizes):
            raise ValueError(f"sizes: {self.sizes}: a height and a width are at least 1 pixel")
        for name in ("seen_pixels", "guidance_range"):
            first, last = getattr(self, name)
            if not 0 <= first <= last:
                raise ValueError(f"{name}: {first} and {last}: the first is not negative and not above the second")
        return self


def read_editor_preset(name: str) -> EditorSettings:
    """Read a preset of an editor.

    Args:
        name: The name of a shipped preset, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such preset, or it is not valid.
    """
    return read_settings(EditorSettings, find_preset(name, PRESETS, "editor preset"), "editor preset")


def read_own_settings(folder: Path) -> EditorSettings | None:
    """Read the settings in an editor's folder.

    Args:
        folder: The pipeline's folder.

    Returns:
        The settings, or None where the folder has none.

    Raises:
        EditLoopError: The settings are not valid.
    """
    path = folder / SETTINGS
    return read_settings(EditorSettings, path, "editor settings") if path.is_file() else None

"""Base of editors whose pipeline diffusers does not have: opening, FLUX.1's codec, and the release's fixed text."""

from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from editloop.errors import EditLoopError
from editloop.models.editors.network_files import PartReader
from editloop.models.editors.own_pipeline import OwnPipeline
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.settings import SETTINGS, Size


class OwnEditor(PipelineEditor):
    """Editor over an `OwnPipeline`."""

    own_pipeline: ClassVar[type[OwnPipeline]]
    """The pipeline's class."""
    channels_last: ClassVar[bool]
    """Whether a packed latent has its channels after its rows and columns, rather than before them."""
    preamble_is: ClassVar[str]
    """What the settings' `preamble` is, for messages."""

    @classmethod
    def pipeline_class(cls) -> type[OwnPipeline]:
        return cls.own_pipeline

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        return cls.own_pipeline.light_parts(folder)

    @classmethod
    def readers(cls, folder: Path) -> dict[str, PartReader]:
        return cls.own_pipeline.readers(folder)

    @property
    def text_tokenizer(self) -> Any:
        return self.pipeline.processor.tokenizer

    @property
    def preamble(self) -> str:
        """The fixed text that the release says to its text encoder.

        Raises:
            EditLoopError: The settings have none.
        """
        if not self.settings.preamble:
            raise EditLoopError(
                f"the settings of this editor have no `preamble`, {self.preamble_is}: {self.where_preamble_goes}"
            )
        return self.settings.preamble

    @property
    def where_preamble_goes(self) -> str:
        """What to do about a missing or wrong preamble, for messages."""
        return f"copy it from the release's code into {SETTINGS} in the editor's folder (docs/editors.md)."

    def to_latents(self, pixels: Tensor) -> Tensor:
        codec = self.pipeline.vae
        latents: Tensor = codec.encode(pixels, return_dict=False)[0].mode()
        scaled = (latents - codec.config.shift_factor) * codec.config.scaling_factor
        patches = scaled.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch))
        order = (3, 5, 1) if self.channels_last else (1, 3, 5)
        packed: Tensor = patches.permute(0, 2, 4, *order).flatten(3).flatten(1, 2)
        return packed

    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        codec, cell = self.pipeline.vae, (self.patch, self.patch)
        patches = x.unflatten(2, (*cell, -1) if self.channels_last else (-1, *cell)).unflatten(1, self.grid(size))
        order = (0, 5, 1, 3, 2, 4) if self.channels_last else (0, 3, 1, 4, 2, 5)
        latents = patches.permute(*order).flatten(4, 5).flatten(2, 3)
        pixels: Tensor = codec.decode(
            latents / codec.config.scaling_factor + codec.config.shift_factor, return_dict=False
        )[0]
        return pixels

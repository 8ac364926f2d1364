"""FLUX Kontext as an `Editor`. A test checks that it samples exactly as `diffusers.FluxKontextPipeline` does."""

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from editloop.models.editors.codec import PatchCodec
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import condition_on


class KontextEditor(PipelineEditor):
    """Editor over `FluxKontextPipeline`.

    CLIP (pooled) and T5 encode the text; the source's latents follow the edit's in the sequence. A network that was
    distilled with guidance takes it as an embedded input. Any other network compares with the negative instruction.
    """

    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder", "text_encoder_2")

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "flux-kontext"

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        config = PatchCodec.load_config(folder / "vae", local_files_only=True)
        linear = config["_class_name"] == PatchCodec.__name__
        return {"vae": PatchCodec.from_pretrained(folder / "vae", local_files_only=True)} if linear else {}

    @torch.no_grad()
    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks into the parts `prompt` (B, L, text width), `pooled` (B, pooled width) and `source` (B, S, C).

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: None: this editor takes one source.

        Raises:
            EditLoopError: There are references.
        """
        prompt, pooled = self._text(instructions)
        return condition_on(self, {"prompt": prompt, "pooled": pooled}, sources, references)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        guidance_scale, text = self.guidance_or_default(guidance), condition.parts
        if self.network.config.guidance_embeds:
            return self._pass(
                x, sigma, condition, text["prompt"], text["pooled"], torch.full_like(sigma, guidance_scale)
            )
        velocity = self._pass(x, sigma, condition, text["prompt"], text["pooled"], None)
        if guidance_scale <= 1:
            return velocity
        prompt, pooled = (part.expand(len(x), *part.shape[1:]) for part in self.negative)
        against = self._pass(x, sigma, condition, prompt, pooled, None)
        return against + guidance_scale * (velocity - against)

    def to_latents(self, pixels: Tensor) -> Tensor:
        latents = self.pipeline._encode_vae_image(pixels, generator=None)
        packed: Tensor = self.pipeline._pack_latents(latents, *latents.shape)
        return packed

    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        codec = self.pipeline.vae
        latents = self.pipeline._unpack_latents(x, *size, self.pipeline.vae_scale_factor)
        pixels: Tensor = codec.decode(
            latents / codec.config.scaling_factor + codec.config.shift_factor, return_dict=False
        )[0]
        return pixels

    def _pass(
        self, x: Tensor, sigma: Tensor, condition: Conditioning, prompt: Tensor, pooled: Tensor, guidance: Tensor | None
    ) -> Tensor:
        return self.answer(
            x,
            condition.parts["source"],
            prompt,
            timestep=sigma,
            guidance=guidance,
            pooled_projections=pooled.to(self.network.dtype),
            txt_ids=torch.zeros(prompt.shape[1], 3, device=x.device),
            img_ids=_positions(*self.grid(condition.size), x.device),
        )

    @cached_property
    def negative(self) -> tuple[Tensor, Tensor]:
        """The encoded negative instruction: (1, L, text width) and pooled (1, pooled width)."""
        with torch.no_grad():
            return self._text((self.settings.negative,))

    def _text(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        with self.on_demand.on_device(self.text_encoders):
            prompt, pooled, _ = self.pipeline.encode_prompt(
                list(instructions), None, device=self.device, max_sequence_length=self.settings.text_tokens
            )
        return prompt.float(), pooled.float()


@cache
def _positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """Return position ids (2 * rows * columns, 3) of the edit's and then the source's latents: (image, row, column)."""
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(rows), torch.arange(columns))
    return grid.float().to(device)

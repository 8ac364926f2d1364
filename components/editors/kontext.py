"""FLUX Kontext as the loop sees an editor. Sampling with these parts equals `diffusers.FluxKontextPipeline` (tested)."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux_kontext import calculate_shift
from numpy.typing import NDArray
from torch import Tensor

from components.editors.pipeline_editor import PipelineEditor
from components.editors.protocol import Conditioning
from components.editors.settings import Size

SOURCE_FRAME = 1
"""First position of the source's latents, where the edit's is 0."""


class KontextEditor(PipelineEditor):
    """Text by CLIP (pooled) and T5, the source as further tokens.

    Guidance is embedded where the network was distilled with it; else it compares with the negative instruction.
    """

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "flux-kontext"

    @torch.no_grad()
    def encode(self, instructions: Sequence[str], sources: NDArray[np.uint8]) -> Conditioning:
        """Parts: `prompt` (B, L, text width), `pooled` (B, pooled width), `source` (B, S, C)."""
        prompt, pooled = self._text(tuple(instructions))
        height, width = sources.shape[1:3]
        return Conditioning((height, width), {"prompt": prompt, "pooled": pooled, "source": self.latents(sources)})

    def shift(self, steps: int, tokens: int) -> float:
        """As published: linear in the number of latents."""
        of = self.pipeline.scheduler.config
        return float(calculate_shift(tokens, of.base_image_seq_len, of.max_image_seq_len, of.base_shift, of.max_shift))

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        told, text = self.guided(guidance), condition.parts
        if self.network.config.guidance_embeds:
            return self._pass(x, sigma, condition, text["prompt"], text["pooled"], torch.full_like(sigma, told))
        velocity = self._pass(x, sigma, condition, text["prompt"], text["pooled"], None)
        if told <= 1:
            return velocity
        prompt, pooled = (part.expand(len(x), *part.shape[1:]) for part in self._negative)
        against = self._pass(x, sigma, condition, prompt, pooled, None)
        return against + told * (velocity - against)

    def to_latents(self, pixels: Tensor) -> Tensor:
        latents = self.pipeline._encode_vae_image(pixels, generator=None)
        return self.pipeline._pack_latents(latents, *latents.shape)

    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        codec = self.pipeline.vae
        latents = self.pipeline._unpack_latents(x, *size, self.pipeline.vae_scale_factor)
        return codec.decode(latents / codec.config.scaling_factor + codec.config.shift_factor, return_dict=False)[0]

    def _pass(
        self, x: Tensor, sigma: Tensor, condition: Conditioning, prompt: Tensor, pooled: Tensor, told: Tensor | None
    ) -> Tensor:
        out = self.answer(
            hidden_states=torch.cat([x, condition.parts["source"]], dim=1),
            timestep=sigma,
            guidance=told,
            pooled_projections=pooled,
            encoder_hidden_states=prompt,
            txt_ids=torch.zeros(prompt.shape[1], 3, device=x.device),
            img_ids=positions(condition.size[0] // self.multiple, condition.size[1] // self.multiple, x.device),
        )
        return out[:, : x.shape[1]]

    def _text(self, instructions: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        prompt, pooled, _ = self.pipeline.encode_prompt(
            list(instructions), None, device=self.device, max_sequence_length=self.settings.text_tokens
        )
        return prompt.float(), pooled.float()

    @property
    def _negative(self) -> tuple[Tensor, Tensor]:
        """The negative instruction, encoded once: (1, L, text width), (1, pooled width)."""
        if self._encoded_negative is None:
            with torch.no_grad():
                self._encoded_negative = self._text((self.settings.negative,))
        return self._encoded_negative

    _encoded_negative: tuple[Tensor, Tensor] | None = None


@cache
def positions(rows: int, columns: int, device: torch.device) -> Tensor:
    """Positions (2 * rows * columns, 3) of the edit's and the source's latents: (frame, row, column)."""
    grid = torch.cartesian_prod(torch.arange(2), torch.arange(rows), torch.arange(columns))
    return grid.float().to(device)

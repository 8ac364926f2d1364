"""What the editors of the FLUX.2 family share: sizes, noise levels, codec, positions and the passes of the network."""

from collections.abc import Sequence
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import condition_on

SOURCE_TIME = 10
"""Time coordinate of the source's latents in the position ids, and by how much that of each reference is later than
that of the image before it. The edit's is 0."""


class Flux2Editor(PipelineEditor):
    """Editor over a pipeline of FLUX.2's family.

    The text encoding joins the states of some layers of a language model, which does not see the source; the latents of
    the source and of the references follow the edit's in the network's sequence.
    """

    sources_after_first: ClassVar[int] = MOST_REFERENCES

    @property
    def text_tokenizer(self) -> PreTrainedTokenizerBase:
        tokenizer: PreTrainedTokenizerBase = self.pipeline.tokenizer
        return tokenizer

    def size_for(self, height: int, width: int, area: int | None = None) -> Size:
        """Return the size at which the editor works on a source, as the pipeline chooses it.

        Where the settings name no sizes and the source has at most `area` pixels, it keeps its size, rounded down to
        whole patches.

        Args:
            height: The source's height in pixels.
            width: The source's width in pixels.
            area: Most pixels of the result, about; None takes the settings'.
        """
        if self.settings.sizes or height * width > (area or self.settings.area):
            return super().size_for(height, width, area)
        rows, columns = self.grid((height, width))
        return max(1, rows) * self.multiple, max(1, columns) * self.multiple

    def shift(self, steps: int, tokens: int) -> float:
        """Return mu of the noise levels by the published formula.

        Args:
            steps: Denoising steps.
            tokens: Packed latents of the edit.
        """
        return compute_empirical_mu(tokens, steps)

    @torch.no_grad()
    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks into the parts `prompt` (B, L, text width * layers) and `source` (B, S, C).

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: For each reference image, uint8 (B, height, width, 3) at a size that `size_for` gave.

        Raises:
            EditLoopError: An instruction spells out a control token, or there are too many references.
        """
        prompt = self.encoded_text(self.checked(instructions))
        return condition_on(self, {"prompt": prompt}, sources, references)

    def to_latents(self, pixels: Tensor) -> Tensor:
        packed: Tensor = self.pipeline._pack_latents(self.pipeline._encode_vae_image(pixels, generator=None))
        return packed

    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        codec = self.pipeline.vae
        latents = x.transpose(1, 2).unflatten(2, self.grid(size))
        mean, variance = (each.view(1, -1, 1, 1) for each in (codec.bn.running_mean, codec.bn.running_var))
        latents = latents * torch.sqrt(variance + codec.config.batch_norm_eps) + mean
        pixels: Tensor = codec.decode(self.pipeline._unpatchify_latents(latents), return_dict=False)[0]
        return pixels

    def one_pass(
        self, x: Tensor, sigma: Tensor, condition: Conditioning, prompt: Tensor, guidance: Tensor | None = None
    ) -> Tensor:
        """Return the network's velocity, float32 (B, S, C).

        Args:
            x: Packed latents (B, S, C).
            sigma: Noise levels (B,), 0..1.
            condition: The B encoded tasks.
            prompt: Encoded instructions (B, L, text width * layers).
            guidance: Guidance scales (B,) that the network embeds; None where it embeds none.
        """
        grids = self.source_grids(condition)
        places = [(0, grids[0]), *((SOURCE_TIME * number, grid) for number, grid in enumerate(grids, start=1))]
        return self.answer(
            x,
            condition.parts["source"],
            prompt,
            timestep=sigma,
            guidance=guidance,
            txt_ids=_positions(0, 1, 1, prompt.shape[1], x.device),
            img_ids=torch.cat([_positions(time, *grid, 1, x.device) for time, grid in places]),
        )

    def encoded_text(self, instructions: list[str]) -> Tensor:
        """Encode texts, float32 (B, L, text width * layers).

        Args:
            instructions: The B texts.
        """
        with self.on_demand.on_device(self.text_encoders):
            prompt, _ = self.pipeline.encode_prompt(
                instructions,
                device=self.device,
                max_sequence_length=self.settings.text_tokens,
                text_encoder_out_layers=self.settings.text_layers,
            )
        encoded: Tensor = prompt.float()
        return encoded


@cache
def _positions(time: int, rows: int, columns: int, length: int, device: torch.device) -> Tensor:
    """Return position ids (rows * columns * length, 4): (time, row, column, index in the text)."""
    each = (torch.tensor([time]), torch.arange(rows), torch.arange(columns), torch.arange(length))
    return torch.cartesian_prod(*each).to(device)

"""OmniGen2 as an `Editor`. Parity fixtures check that it samples as the published code does."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.models.editors.omnigen2_network import MOST_SOURCES, OmniGen2Transformer2DModel
from editloop.models.editors.own_editor import OwnEditor
from editloop.models.editors.own_pipeline import OwnPipeline
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.qwen_processor import PictureProcessor, chat_text
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import condition_on

SHIFT_SIDE = 40
"""Latent pixels of the side of an image whose noise levels are not shifted."""
SAME_STEP = 1e-4
"""Shares of the steps that differ by less are the same step."""


class OmniGen2Pipeline(OwnPipeline):
    """The parts of OmniGen2 by the release's names."""

    network_class = OmniGen2Transformer2DModel
    published = {  # noqa: RUF012
        "transformer": ("transformer_omnigen2", "OmniGen2Transformer2DModel"),
        "scheduler": ("scheduling_flow_match_euler_discrete_time_shifting", "FlowMatchEulerDiscreteScheduler"),
        "processor": ("transformers", "Qwen2_5_VLProcessor"),
    }

    def __init__(
        self,
        transformer: OmniGen2Transformer2DModel,
        vae: AutoencoderKL,
        scheduler: FlowMatchEulerDiscreteScheduler,
        mllm: Qwen2_5_VLForConditionalGeneration | None,
        processor: PictureProcessor | None,
    ):
        """Join the parts.

        Args:
            transformer: The network.
            vae: FLUX.1's codec.
            scheduler: Only its configuration is used: `dynamic_time_shift`, True where it says nothing.
            mllm: The text encoder.
            processor: The text encoder's processor.
        """
        super().__init__()
        self.register(transformer=transformer, vae=vae, scheduler=scheduler, mllm=mllm, processor=processor)


class OmniGen2Editor(OwnEditor):
    """Editor over OmniGen2's parts.

    Qwen2.5-VL encodes the text alone; the patches of the source and of the references precede the edit's in the
    network's sequence. `guidance` steers towards the instruction and `settings.image_guidance` towards all sources, in
    `settings.guidance_range`.
    """

    sources_after_first: ClassVar[int] = min(MOST_REFERENCES, MOST_SOURCES - 1)
    text_encoders: ClassVar[tuple[str, ...]] = ("mllm",)
    own_pipeline = OmniGen2Pipeline
    channels_last = True
    preamble_is = "the system message that OmniGen2 was trained with"

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "omnigen2"

    def size_for(self, height: int, width: int, area: int | None = None) -> Size:
        """Return the size at which the editor works on a source: shrunk to the settings' limits, never enlarged.

        Where the settings name sizes, it is the one with the nearest aspect ratio.

        Args:
            height: The source's height in pixels.
            width: The source's width in pixels.
            area: Most pixels of the result; None takes the settings'.
        """
        if self.settings.sizes:
            return super().size_for(height, width, area)
        longest = self.settings.longest_side or max(height, width)
        ratio = min(1.0, ((area or self.settings.area) / (height * width)) ** 0.5, longest / max(height, width))
        rows, columns = (max(1, int(side * ratio) // self.multiple) for side in (height, width))
        return rows * self.multiple, columns * self.multiple

    def sigmas(self, steps: int, size: Size) -> Tensor:
        """Return noise levels (steps + 1,) from 1 to 0: even steps, shifted with the image's size.

        Args:
            steps: Denoising steps.
            size: (height, width) of the edit in pixels.
        """
        time = torch.linspace(0, 1, steps + 1)
        shift = self._shift(size)
        return 1 - time / (shift - shift * time + time)

    def noise(self, count: int, size: Size, generator: torch.Generator) -> Tensor:
        rows, columns = self.grid(size)
        channels = self.network.config.in_channels * self.patch**2
        return torch.randn(count, rows * columns, channels, generator=generator).to(self.device)

    @torch.no_grad()
    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks.

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: For each reference image, uint8 (B, height, width, 3) at a size that `size_for` gave.

        Returns:
            The parts `prompt` (B, L, text width), its mask `prompt_mask` (B, L), False at padding, and `source` (B, S,
            C). The negative instruction is the same for all tasks and is kept once, in `negative`.

        Raises:
            EditLoopError: An instruction spells out a control token, the settings have no preamble, or there are too
                many references.
        """
        prompt, mask = self._text(self.checked(instructions))
        return condition_on(self, {"prompt": prompt, "prompt_mask": mask}, sources, references)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        guidance_scale, parts = self.guidance_or_default(guidance), condition.parts
        source, without = parts["source"], x.new_zeros(len(x), 0, x.shape[2])
        velocity = self._pass(x, sigma, condition, parts["prompt"], parts["prompt_mask"], source)
        if guidance_scale <= 1:
            return velocity
        guided = self._is_guided(sigma, condition.size)
        if not guided.any():
            return velocity
        negative = self.negative.expand(len(x), -1, -1)
        against = self._pass(x, sigma, condition, negative, None, without)
        image_scale = self.settings.image_guidance
        pictured = self._pass(x, sigma, condition, negative, None, source) if image_scale > 1 else None
        steered = guide(velocity, pictured, against, guidance_scale, image_scale)
        return torch.where(guided.view(-1, 1, 1), steered, velocity)

    @cached_property
    def negative(self) -> Tensor:
        """The encoded negative instruction, (1, L, text width)."""
        with torch.no_grad():
            return self._text([self.settings.negative])[0]

    def _pass(
        self, x: Tensor, sigma: Tensor, condition: Conditioning, text: Tensor, mask: Tensor | None, source: Tensor
    ) -> Tensor:
        """Return the velocity without guidance. The network's time runs the other way, and so does its velocity."""
        grids = self.source_grids(condition)
        return -self.answer(
            x,
            source,
            text,
            timestep=1 - sigma,
            grids=[grids[0], *grids] if source.shape[1] else grids[:1],
            encoder_attention_mask=None if mask is None or mask.all() else mask,
        )

    def _shift(self, size: Size) -> float:
        scheduler = self.pipeline.scheduler.config
        if not scheduler.get("dynamic_time_shift", True):
            return 1.0
        rows, columns = self.grid(size)
        return self.patch * float(np.sqrt(rows * columns)) / SHIFT_SIDE

    def _is_guided(self, sigma: Tensor, size: Size) -> Tensor:
        """Whether each noise level is in the guided range of steps: bool (B,)."""
        shift = self._shift(size)
        step = 1 - sigma / (shift - (shift - 1) * sigma)
        first, last = self.settings.guidance_range
        return (step > first - SAME_STEP) & (step < last + SAME_STEP)

    def _text(self, instructions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return encodings (B, L, text width) and their mask (B, L), False at padding."""
        tokenizer = self.pipeline.processor.tokenizer
        texts = [chat_text(tokenizer, text, self.preamble, answered=False) for text in instructions]
        limit = self.settings.text_tokens or None
        rows = tokenizer(
            texts,
            padding="longest",
            padding_side="right",
            truncation=limit is not None,
            max_length=limit,
            return_tensors="pt",
        ).to(self.device)
        with self.on_demand.on_device(self.text_encoders):
            states = self.pipeline.mllm.model(input_ids=rows.input_ids, attention_mask=rows.attention_mask)
        encoded: Tensor = states.last_hidden_state.float()
        return encoded, rows.attention_mask.bool()


def guide(velocity: Tensor, pictured: Tensor | None, against: Tensor, guidance: float, image_guidance: float) -> Tensor:
    """Return the guided velocity.

    Args:
        velocity: With instruction and source, (B, S, C).
        pictured: With the negative instruction and the source. None means no guidance towards the source.
        against: With the negative instruction and no source.
        guidance: Scale towards the instruction.
        image_guidance: Scale towards the source.
    """
    if pictured is None:
        return against + guidance * (velocity - against)
    return against + image_guidance * (pictured - against) + guidance * (velocity - pictured)

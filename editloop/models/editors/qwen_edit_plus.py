"""Qwen-Image-Edit-Plus as an `Editor`. It samples exactly as `diffusers.QwenImageEditPlusPipeline` does.

Its text encoder is told which tokens are the picture's, as the pipeline relies on transformers 4 to find out.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import calculate_dimensions
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.data.vocabulary import MOST_REFERENCES
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.qwen_processor import PictureProcessor
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import condition_on

LONGEST_TEXT = 2048
"""Tokens of an instruction. The network has positions for 4,096, less those of the source as the text encoder sees it,
of the chat template, and of the edit's rows or columns."""
SEEN_UNIT = 32
"""Pixels: the pipeline rounds the sides of what the text encoder sees to multiples of it, a narrow source's to 0."""


class QwenEditPlusEditor(PipelineEditor):
    """Editor over `QwenImageEditPlusPipeline`.

    Qwen2.5-VL encodes text and sources together; the latents of the source and of the references also follow the edit's
    in the sequence. The edit has the size of the source; the pipeline's own default is that of the last image. Guidance
    compares with the negative instruction and keeps the norm of each latent's velocity.
    """

    sources_after_first: ClassVar[int] = MOST_REFERENCES
    rounding: ClassVar[int] = 2

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "qwen-image-edit-plus"

    @classmethod
    def parts(cls, folder: Path) -> dict[str, Any]:
        return {"processor": PictureProcessor.from_folder(folder / "processor")}

    @property
    def text_tokenizer(self) -> Any:
        return self.pipeline.processor.tokenizer

    @property
    def longest_text(self) -> int:
        return LONGEST_TEXT

    @torch.no_grad()
    def encode(
        self,
        instructions: Sequence[str],
        sources: NDArray[np.uint8],
        references: Sequence[NDArray[np.uint8]] = (),
    ) -> Conditioning:
        """Encode B tasks into the parts that `velocity` reads.

        Args:
            instructions: The B instructions.
            sources: uint8 (B, height, width, 3) at a size that `size_for` gave.
            references: For each reference image, uint8 (B, height, width, 3) at a size that `size_for` gave.

        Returns:
            The parts `prompt` and `negative` (B, L, text width), their masks `prompt_mask` and `negative_mask` (B, L),
            False at padding, and `source` (B, S, C).

        Raises:
            EditLoopError: An instruction spells out a control token, or there are too many references.
        """
        pictures = [[self._seen(picture) for picture in task] for task in zip(sources, *references, strict=True)]
        with self.on_demand.on_device(self.text_encoders):
            prompt, mask = self._text(self.checked(instructions), pictures)
            negative, negative_mask = self._text([self.settings.negative] * len(pictures), pictures)
        texts = {"prompt": prompt, "prompt_mask": mask, "negative": negative, "negative_mask": negative_mask}
        return condition_on(self, texts, sources, references)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        guidance_scale, text = self.guidance_or_default(guidance), condition.parts
        velocity = self._pass(x, sigma, condition, text["prompt"], text["prompt_mask"])
        if guidance_scale <= 1:
            return velocity
        against = self._pass(x, sigma, condition, text["negative"], text["negative_mask"])
        guided = against + guidance_scale * (velocity - against)
        rescaled: Tensor = guided * (velocity.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        return rescaled

    def to_latents(self, pixels: Tensor) -> Tensor:
        latents = self.pipeline._encode_vae_image(pixels.unsqueeze(2), generator=None).contiguous()
        batch, channels, _, rows, columns = latents.shape
        packed: Tensor = self.pipeline._pack_latents(latents, batch, channels, rows, columns)
        return packed

    def to_pixels(self, x: Tensor, size: Size) -> Tensor:
        codec = self.pipeline.vae
        latents = self.pipeline._unpack_latents(x, *size, self.pipeline.vae_scale_factor)
        mean, deviation = (
            torch.tensor(each, device=x.device, dtype=x.dtype).view(1, -1, 1, 1, 1)
            for each in (codec.config.latents_mean, codec.config.latents_std)
        )
        pixels: Tensor = codec.decode(latents * deviation + mean, return_dict=False)[0][:, :, 0]
        return pixels

    def save(self, folder: Path) -> None:
        super().save(folder)
        index = json.loads((folder / "model_index.json").read_text())
        index["processor"] = ["transformers", "Qwen2VLProcessor"]
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    def _pass(self, x: Tensor, sigma: Tensor, condition: Conditioning, text: Tensor, mask: Tensor) -> Tensor:
        grids = [(1, *grid) for grid in self.source_grids(condition)]
        return self.answer(
            x,
            condition.parts["source"],
            text,
            timestep=sigma,
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[[grids[0], *grids]] * len(x),
        )

    def _seen(self, picture: NDArray[np.uint8]) -> Image.Image:
        """Return a source image as the text encoder sees it."""
        width, height = calculate_dimensions(self.settings.seen_area, picture.shape[1] / picture.shape[0])
        size = max(SEEN_UNIT, width), max(SEEN_UNIT, height)
        return Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)

    def _text(self, instructions: Sequence[str], pictures: Sequence[list[Image.Image]]) -> tuple[Tensor, Tensor]:
        """Return encodings (B, L, text width), padded with zeros, and their mask (B, L), False at padding.

        `pictures` are the source images of each task. Tasks are encoded one at a time: in a batch the pipeline shows
        every image to every instruction.
        """
        with marked_pictures(self.pipeline.text_encoder):
            encodings = [
                self.pipeline.encode_prompt(prompt=[text], image=shown, device=self.device)[0][0].float()
                for text, shown in zip(instructions, pictures, strict=True)
            ]
        masks = [torch.ones(len(encoding), dtype=torch.bool, device=encoding.device) for encoding in encodings]
        pad = torch.nn.utils.rnn.pad_sequence
        return pad(encodings, batch_first=True), pad(masks, batch_first=True)


@contextmanager
def marked_pictures(encoder: Qwen2_5_VLForConditionalGeneration) -> Iterator[None]:
    """Tell the text encoder within the block which tokens are a picture's.

    transformers 5 gives a picture's tokens their positions in rows and columns only where it is told so, and diffusers'
    pipeline, written for transformers 4, does not tell it.

    Args:
        encoder: The text encoder.
    """

    def mark(
        module: torch.nn.Module, arguments: tuple[Tensor, ...], inputs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        kinds = (inputs["input_ids"] == encoder.config.image_token_id).int()
        return arguments, {**inputs, "mm_token_type_ids": kinds}

    hook = encoder.register_forward_pre_hook(mark, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()

"""Step1X-Edit v1.0, v1.1 and v1.2 as an `Editor`. Parity fixtures check that it samples as the published code does."""

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.errors import EditLoopError
from editloop.models.editors.network_files import PartReader
from editloop.models.editors.own_editor import OwnEditor
from editloop.models.editors.own_pipeline import OwnPipeline
from editloop.models.editors.protocol import Conditioning
from editloop.models.editors.qwen_processor import PictureProcessor, chat_text
from editloop.models.editors.settings import Size
from editloop.models.editors.sources import condition_on
from editloop.models.editors.step1x_files import flux_scheduler, released_files, released_readers
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel
from editloop.models.editors.step1x_text import TextPiece, paired_quotations, straight_quotations, text_positions

PICTURE = "<|image_pad|>"
"""The token that stands for a token of the picture."""
PICTURE_END = "<|vision_end|>"
"""The token after the picture's."""
PREAMBLE_SLACK = 2
"""Tokens by which a preamble's count may differ: its last characters may join the text after it."""
REDUCTION = 0.4
"""Exponent of the reduction of guidance: a difference of norm n > 1 is divided by n to this power."""


class Step1XEditPipeline(OwnPipeline):
    """The parts of Step1X-Edit v1.0 or v1.1 by the release's names."""

    network_class = Step1XEditTransformer2DModel
    published = {  # noqa: RUF012
        "transformer": ("diffusers", "Step1XEditTransformer2DModel"),
        "processor": ("transformers", "Qwen2_5_VLProcessor"),
    }

    def __init__(
        self,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKL,
        text_encoder: Qwen2_5_VLForConditionalGeneration | None,
        processor: PictureProcessor | None,
        transformer: Step1XEditTransformer2DModel,
    ):
        """Join the parts.

        Args:
            scheduler: FLUX.1's scheduler.
            vae: FLUX.1's codec.
            text_encoder: Qwen2.5-VL.
            processor: The text encoder's processor.
            transformer: The network.
        """
        super().__init__()
        self.register(
            scheduler=scheduler, vae=vae, text_encoder=text_encoder, processor=processor, transformer=transformer
        )

    @classmethod
    def light_parts(cls, folder: Path) -> dict[str, Any]:
        files = released_files(folder)
        if files is None:
            return super().light_parts(folder)
        return {"scheduler": flux_scheduler(), "processor": PictureProcessor.from_folder(files.text_encoder)}

    @classmethod
    def readers(cls, folder: Path) -> dict[str, PartReader]:
        files = released_files(folder)
        return super().readers(folder) if files is None else released_readers(files)


class Step1XEditPipelineV1P2(Step1XEditPipeline):
    """The parts of Step1X-Edit v1.2 by the release's names."""


class _Text(NamedTuple):
    """An encoded instruction, for one task or padded for B."""

    states: Tensor
    """The text encoder's states, (L, width)."""
    mask: Tensor
    """bool (L,), True: joined texts are False at padding."""
    places: Tensor
    """v1.2: positions (L, 3)."""
    characters: Tensor
    """v1.2: the text encoder's input embeddings, (L, width)."""
    quoted: Tensor
    """v1.2: bool (L,), True at quoted characters."""


class Step1XEditor(OwnEditor):
    """Editor over Step1X-Edit's parts.

    Qwen2.5-VL encodes instruction and source together; the source's latents also follow the edit's in the sequence.
    Guidance compares with the negative instruction and is reduced above `settings.rescale_above` where it is large.
    """

    own_pipeline: ClassVar[type[OwnPipeline]] = Step1XEditPipeline
    channels_last = False
    preamble_is = "the text that Step1X-Edit was trained with before the instruction"

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "step1x-edit-v1p0" if index.get("release") == "v1.0" else "step1x-edit-v1p1"

    def size_for(self, height: int, width: int, area: int | None = None) -> Size:
        """Return the size at which the editor works on a source: the release's own rounding of about `area` pixels.

        Where the settings name sizes, it is the one with the nearest aspect ratio.

        Args:
            height: The source's height in pixels.
            width: The source's width in pixels.
            area: Pixels of the result, about; None takes the settings'.
        """
        if self.settings.sizes:
            return super().size_for(height, width, area)
        ratio, area = width / height, area or self.settings.area
        if width > height:
            new_width = math.ceil(math.sqrt(area * ratio))
            new_height = math.ceil(new_width / ratio)
        else:
            new_height = math.ceil(math.sqrt(area / ratio))
            new_width = math.ceil(new_height * ratio)
        rows, columns = (max(1, side // self.multiple) for side in (new_height, new_width))
        return rows * self.multiple, columns * self.multiple

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
            references: None: this editor takes one source.

        Returns:
            The parts `prompt` and `negative` (B, L, text width), their masks `prompt_mask` and `negative_mask` (B, L),
            False at padding, and `source` (B, S, C). v1.2 has positions besides, `places` and `places_negative` (B, L,
            3), and of quoted characters the input embeddings, `characters` (B, L, text width), and `quoted` (B, L).

        Raises:
            EditLoopError: An instruction spells out a control token, there are references, or the settings have no
                preamble or another one than the release's.
        """
        with self.on_demand.on_device(self.text_encoders):
            encoded = self._joined(self.checked(instructions), sources)
            against = self._joined([self.settings.negative] * len(sources), sources)
        parts = {
            "prompt": encoded.states,
            "prompt_mask": encoded.mask,
            "negative": against.states,
            "negative_mask": against.mask,
        }
        if self.settings.release == "v1.2":
            parts |= {"places": encoded.places, "places_negative": against.places}
            parts |= {"characters": encoded.characters * encoded.quoted[..., None], "quoted": encoded.quoted}
        return condition_on(self, parts, sources, references)

    def velocity(self, x: Tensor, sigma: Tensor, condition: Conditioning, guidance: float | None = None) -> Tensor:
        guidance_scale, parts = self.guidance_or_default(guidance), condition.parts
        velocity = self._pass(x, sigma, condition, "prompt", "prompt_mask", "places", parts.get("characters"))
        if guidance_scale <= 1:
            return velocity
        against = self._pass(x, sigma, condition, "negative", "negative_mask", "places_negative", None)
        difference = velocity - against
        is_reduced = (sigma > self.settings.rescale_above).view(-1, 1, 1)
        return against + guidance_scale * torch.where(is_reduced, reduced(difference), difference)

    def _pass(
        self,
        x: Tensor,
        sigma: Tensor,
        condition: Conditioning,
        text: str,
        mask: str,
        places: str,
        characters: Tensor | None,
    ) -> Tensor:
        parts, release = condition.parts, self.settings.release
        states, text_mask = parts[text], parts[mask]
        if release != "v1.2":
            padding = self.settings.text_tokens - states.shape[1]
            states = functional.pad(states, (0, 0, 0, padding))
            text_mask = functional.pad(text_mask, (0, padding))
        return self.answer(
            x,
            parts["source"],
            states,
            timestep=sigma,
            prompt_embeds_mask=text_mask,
            img_ids=image_positions(*self.grid(condition.size), release, x.device),
            txt_ids=parts[places] if release == "v1.2" else states.new_zeros(1, states.shape[1], 3),
            text_embeddings=None if characters is None else characters.to(self.network.dtype),
            text_mask=None if characters is None else parts["quoted"],
            attend_padding=release != "v1.2",
        )

    def _joined(self, instructions: Sequence[str], sources: NDArray[np.uint8]) -> _Text:
        """Return encodings of B tasks, padded at the end with zeros. Tasks are encoded one at a time."""
        texts = [self._text(*task) for task in zip(instructions, sources, strict=True)]
        pad = torch.nn.utils.rnn.pad_sequence
        return _Text(*(pad(list(each), batch_first=True) for each in zip(*texts, strict=True)))

    def _text(self, instruction: str, source: NDArray[np.uint8]) -> _Text:
        pixels, grid = self._seen(source)
        tokens = self._tokens(instruction, int(grid.prod()) // self._merge**2)
        ids = torch.tensor([[token for each in tokens for token in each.ids]], device=self.device)
        is_picture = ids[0] == self.pipeline.processor.tokenizer.convert_tokens_to_ids(PICTURE)
        model = self.pipeline.text_encoder.model
        kinds = is_picture[None].int()
        grids = grid[None].to(self.device)
        states = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels.to(self.device),
            image_grid_thw=grids,
            mm_token_type_ids=kinds,
        ).last_hidden_state[0]
        span = slice(self.settings.preamble_tokens, self.settings.preamble_tokens + self.settings.text_tokens)
        temporal = model.get_rope_index(ids, kinds, image_grid_thw=grids)[0][0, 0]
        return _Text(
            states[span].float(),
            torch.ones_like(is_picture[span]),
            text_positions(
                temporal[span],
                is_picture[span],
                (int(grid[1]) // self._merge, int(grid[2]) // self._merge),
                (source.shape[0], source.shape[1]),
            ),
            model.get_input_embeddings()(ids)[0, span].float(),
            torch.tensor([each.quoted for each in tokens for _ in each.ids], device=self.device)[span],
        )

    @property
    def _merge(self) -> int:
        """Patches of the side of what the text encoder takes as one token."""
        return int(self.pipeline.processor.image_processor.merge_size)

    def _seen(self, source: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Return the source as the text encoder takes it: patches, and their grid (time, rows, columns)."""
        processor = self.pipeline.processor.image_processor
        picture, cell = Image.fromarray(source), processor.patch_size * processor.merge_size
        if self.settings.release != "v1.2":
            height, width = (max(1, round(side / cell)) * cell for side in source.shape[:2])
            picture = picture.resize((width, height))
        fewest, most = self.settings.seen_pixels
        inputs = processor([picture], size={"shortest_edge": fewest, "longest_edge": most}, return_tensors="pt")
        return inputs["pixel_values"], inputs["image_grid_thw"][0]

    def _tokens(self, instruction: str, picture_tokens: int) -> list["_Tokens"]:
        """Return the tokens of the whole text, piece by piece."""
        tokenizer, preamble = self.pipeline.processor.tokenizer, self.preamble
        picture = {"type": "image"}
        if self.settings.release == "v1.2":
            text = chat_text(tokenizer, [{"type": "text", "text": f"{preamble} {instruction}"}, picture])
            before, _, after = text.partition(f"{preamble} {instruction}")
            first, *others = paired_quotations(instruction)
            pieces = [TextPiece(f"{before}{preamble} {first.text}", quoted=False), *others]
            pieces[-1] = TextPiece(pieces[-1].text + after.replace(PICTURE, PICTURE * picture_tokens), quoted=False)
            return [_Tokens(tokenizer.encode(piece.text), piece.quoted) for piece in pieces]
        text = chat_text(
            tokenizer, [{"type": "text", "text": preamble}, picture, {"type": "text", "text": instruction}]
        )
        whole = tokenizer.encode(text.replace(PICTURE, PICTURE * picture_tokens))
        quoted = [token for piece in straight_quotations(text) for token in self._alone(piece)]
        end = tokenizer.convert_tokens_to_ids(PICTURE_END)
        return [_Tokens(whole[: whole.index(end)] + quoted[quoted.index(end) :], quoted=False)]

    def _alone(self, piece: TextPiece) -> list[int]:
        """Return the tokens of a piece. Those of a quoted character are taken from between typographic quotes."""
        tokenizer = self.pipeline.processor.tokenizer
        if not piece.quoted:
            return list(tokenizer.encode(piece.text))
        left, right = (tokenizer.encode(quote) for quote in "\u201c\u201d")
        tokens = list(tokenizer.encode(f"\u201c{piece.text}\u201d"))
        is_between = tokens[: len(left)] == left and tokens[-len(right) :] == right
        return tokens[len(left) : -len(right)] if is_between else tokens

    @property
    def preamble(self) -> str:
        """The text before the instruction, after checking that it has the release's number of tokens."""
        preamble, expected = super().preamble, self.settings.preamble_tokens
        tokenizer = self.pipeline.processor.tokenizer
        text = chat_text(tokenizer, [{"type": "text", "text": preamble}])
        tokens = len(tokenizer.encode(text[: text.index(preamble) + len(preamble)]))
        if abs(tokens - expected) > PREAMBLE_SLACK:
            raise EditLoopError(
                f"the `preamble` of this editor's settings ends at token {tokens}, the release's at {expected}: "
                f"{self.where_preamble_goes}"
            )
        return preamble


class Step1XEditorV1P2(Step1XEditor):
    """Editor over v1.2's parts, whose pipeline has a class of its own."""

    own_pipeline = Step1XEditPipelineV1P2

    @property
    def longest_text(self) -> int:
        """Most tokens of an instruction and of the source, which comes after it and must not be cut off."""
        return self.settings.text_tokens

    def count_tokens(self, instruction: str) -> int:
        patch = self.pipeline.processor.image_processor.patch_size
        seen = self.settings.seen_pixels[1] // (patch * self._merge) ** 2
        return sum(len(piece.ids) for piece in self._tokens(instruction, seen)) - self.settings.preamble_tokens

    @staticmethod
    def preset(index: dict[str, Any]) -> str:
        return "step1x-edit-v1p2"


class _Tokens(NamedTuple):
    ids: list[int]
    quoted: bool


def reduced(difference: Tensor) -> Tensor:
    """Return what guidance adds, less where it is large: a row of norm n above 1 gets the norm n^0.6.

    Args:
        difference: Velocity with the instruction minus that with the negative one, (..., C).
    """
    factors: Tensor = difference.norm(dim=-1, keepdim=True).clamp(min=1) ** REDUCTION
    return difference / factors


@cache
def image_positions(
    rows: int, columns: int, release: Literal["", "v1.0", "v1.1", "v1.2"], device: torch.device
) -> Tensor:
    """Return positions (2 * rows * columns, 3) of the edit's and then of the source's latents.

    Args:
        rows: Rows of packed latents.
        columns: Columns of packed latents.
        release: The release. In v1.0 the source lies where the edit does, in v1.1 behind it and a cell further.
        device: Where the positions are used.
    """
    edit = torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns)).float()
    offset = {"v1.0": (0, 0, 0), "v1.1": (1, 1, 1), "v1.2": (1, 0, 0)}[release]
    return torch.cat([edit, edit + torch.tensor(offset)]).to(device)

"""Questions as rows of tokens and pictures, in Qwen's chat format.

    <|im_start|>system ... <|im_end|>
    <|im_start|>user <picture> [<picture>] question <|im_end|>
    <|im_start|>assistant answer <|im_end|>

Control tokens come from here alone: the text of an instruction, an answer or a prompt is data, whatever it spells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from components.backbones.pictures import (
    Patches,
    Patching,
    check_picture,
    distinct,
    paired_patches,
    patches_of,
    scaled_size,
)
from components.backbones.prefix_tree import Markers, markers
from components.backbones.text import control_id, shortened, text_ids
from components.edit_score.settings import DIGITS, INSTRUCTION, EditScoreSettings
from components.judges.protocol import EditGroup, Picture
from infra.errors import EditLoopError

START, END = "<|im_start|>", "<|im_end|>"
IGNORED = -100
"""Target of a token that is not an answer's; what torch's cross-entropy leaves out."""

Part = tuple[int, ...] | Patches


@dataclass(frozen=True)
class Row:
    """A prompt, and the answer that is to be learnt."""

    prompt: tuple[Part, ...]
    """Token ids, and pictures, each of which stands between its vision start and end tokens."""
    answer: tuple[int, ...] = ()
    """Token ids; empty where an answer is asked for."""


class Asked(NamedTuple):
    """Both questions about one edit."""

    sc: Row
    pq: Row


class RowMaker:
    """Makes rows for one backbone's config, tokenizer and settings. On the CPU, without weights."""

    def __init__(self, config: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        """config: of a Qwen2.5-VL or Qwen3-VL."""
        vision = config.vision_config
        self.tokenizer, self.settings, self.marks = tokenizer, settings, markers(config)
        self.patching = Patching(
            vision.patch_size, vision.spatial_merge_size, settings.min_pixels, settings.max_pixels,
            settings.image_mean, settings.image_std, vision.temporal_patch_size,
        )  # fmt: skip
        self.start, self.end = (control_id(tokenizer, token) for token in (START, END))

    def ask(self, group: EditGroup) -> list[Asked]:
        """SC and PQ about each edit of a group. PQ's row has nothing of the source, and nothing of the instruction."""
        sc, pq = self.settings.questions
        instruction = shortened(self.tokenizer, group.instruction, self.settings.instruction_tokens)
        asked = sc.text.replace(INSTRUCTION, instruction)
        return [
            Asked(self._prompt(both, asked), self._prompt((alone,), pq.text)) for both, alone in self._pictures(group)
        ]

    def points(self, asked: Asked) -> tuple[Row, ...]:
        """An answer begun for each of the four points, whose next token is a digit: for scoring without reasoning."""
        return tuple(
            replace(row, prompt=(*row.prompt, self._text(f"{axis}: ")))
            for row, question in zip(asked, self.settings.questions, strict=True)
            for axis in question.axes
        )

    def answered(self, row: Row, answer: str) -> Row:
        """The row with the answer that is to be learnt; one with reasoning also ends its turn."""
        return replace(row, answer=(*self._text(answer), *((self.end,) if self.settings.reasoning else ())))

    def digits(self) -> list[int]:
        """Token ids of the digits 0..5; EditLoopError for a tokenizer that has no token for each."""
        found = [self._text(digit) for digit in DIGITS]
        if any(len(ids) != 1 for ids in found):
            raise EditLoopError(
                f"tokenizer: the digits {DIGITS} are not a token each ({found}); judging without reasoning needs that."
            )
        return [ids[0] for ids in found]

    def _pictures(self, group: EditGroup) -> list[tuple[tuple[Patches, ...], Patches]]:
        """What SC and PQ show of each edit."""
        if self.settings.pictures == "separate":
            source = patches_of(group.source, self.patching)
            edits = [patches_of(edit, self.patching) for edit in group.edits]
            return [((source, edit), edit) for edit in edits]
        check_picture(group.source, "source")
        height, width, _ = group.source.shape
        size = scaled_size(height, width, self.patching)
        first, scaled = _scaled(group.source, size), [_scaled(edit, size) for edit in group.edits]
        return [
            ((paired_patches(first, edit, self.patching),), paired_patches(edit, edit, self.patching))
            for edit in scaled
        ]

    def _prompt(self, pictures: tuple[Patches, ...], text: str) -> Row:
        line, system = self._text("\n"), self.settings.system
        opening = (self.start, *self._text("system\n" + system), self.end, *line) if system else ()
        user = (*opening, self.start, *self._text("user\n"))
        closing = (*self._text(text), self.end, *line, self.start, *self._text("assistant\n"))
        return Row((user, *pictures, closing))

    def _text(self, text: str) -> tuple[int, ...]:
        return tuple(text_ids(self.tokenizer, text))


def collate(rows: Sequence[Row], backbone: Any, pad: int) -> dict[str, Tensor]:
    """Tensors of B rows, padded on the left to L tokens with `pad`. Every distinct picture is there once.

    backbone: Qwen2_5_VLModel or Qwen3VLModel, asked for positions alone. input_ids, attention_mask and targets (an
    answer's token ids where they stand, -100 elsewhere) are (B, L); position_ids (3, B, L); pixel_values,
    image_grid_thw, image_of as in components.backbones.pictures.ImageFeatures.
    """
    marks = markers(backbone.config)
    prompts = [[token for part in row.prompt for token in _tokens(part, marks)] for row in rows]
    length = max(len(prompt) + len(row.answer) for prompt, row in zip(prompts, rows, strict=True))
    input_ids = torch.full((len(rows), length), pad)
    mask, targets = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for place, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        start = length - len(prompt) - len(row.answer)
        input_ids[place, start:] = torch.tensor([*prompt, *row.answer])
        mask[place, start:] = 1
        targets[place, start + len(prompt) :] = torch.tensor(row.answer, dtype=torch.long)
    images = distinct([part for row in rows for part in row.prompt if isinstance(part, Patches)])
    positions, _ = backbone.get_rope_index(
        input_ids, mm_token_type_ids=(input_ids == marks.image).int(), attention_mask=mask,
        image_grid_thw=images.image_grid_thw[images.image_of],
    )  # fmt: skip
    text = {"input_ids": input_ids, "attention_mask": mask, "position_ids": positions, "targets": targets}
    return text | images._asdict()


def _tokens(part: Part, marks: Markers) -> Sequence[int]:
    if isinstance(part, Patches):
        return [marks.start, *[marks.image] * part.tokens(marks.merge), marks.end]
    return part


def _scaled(picture: Picture, size: tuple[int, int]) -> Picture:
    check_picture(picture)
    if picture.shape[:2] == size:
        return picture
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BICUBIC))

"""Questions as rows of tokens and pictures, in Qwen's chat format.

    <|im_start|>system ... <|im_end|>
    <|im_start|>user <picture> [<picture>] question <|im_end|>
    <|im_start|>assistant answer <|im_end|>

Control tokens come from here alone: the text of an instruction, an answer or a prompt is data, whatever it spells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from components.edit_score.settings import DIGITS, INSTRUCTION, EditScoreSettings, Question
from components.judges.protocol import Picture

START, END = "<|im_start|>", "<|im_end|>"
VISION_START, VISION_END, IMAGE = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"
IGNORED = -100


@dataclass(frozen=True)
class Shown:
    """One image as the vision tower takes it: two frames, the same picture twice unless two are paired."""

    first: Picture
    second: Picture

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for equal pictures: what the vision tower has seen it need not see again."""
        return self.first.shape, self.first.tobytes(), self.second.shape, self.second.tobytes()


Part = tuple[int, ...] | Shown


@dataclass(frozen=True)
class Row:
    """A prompt, and the answer that is to be learnt."""

    prompt: tuple[Part, ...]
    answer: tuple[int, ...] = ()
    """Token ids, the closing `<|im_end|>` among them; empty where an answer is asked for."""


class RowMaker:
    """Makes rows for one tokenizer and one model's settings."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings):
        self.tokenizer, self.settings = tokenizer, settings

    def ask(self, question: Question, instruction: str, source: Picture, edit: Picture) -> Row:
        """The prompt of a question about one edit. PQ's shows nothing of the source, and nothing of the instruction."""
        if self.settings.pictures == "paired":
            shown = [Shown(source, edit) if question.name == "sc" else Shown(edit, edit)]
        else:
            shown = [Shown(one, one) for one in ((source, edit) if question.name == "sc" else (edit,))]
        system = self.settings.system
        start = self._control(START)
        opening = (*start, *self._text("system\n" + system), *self._control(END), *self._text("\n")) if system else ()
        parts: list[Part] = [(*opening, *start, *self._text("user\n"))]
        for one in shown:
            parts += [self._control(VISION_START), one, self._control(VISION_END)]
        parts.append(
            (
                *self._text(question.text.replace(INSTRUCTION, instruction)),
                *self._control(END), *self._text("\n"), *start, *self._text("assistant\n"),
            )
        )  # fmt: skip
        return Row(tuple(parts))

    def point(self, row: Row, axis: str) -> Row:
        """The prompt with an answer begun, whose next token is the digit of one axis: for scoring without reasoning."""
        return replace(row, prompt=(*row.prompt, self._text(f"{axis}: ")))

    def answered(self, row: Row, answer: str) -> Row:
        """The prompt with the answer that is to be learnt."""
        return replace(row, answer=(*self._text(answer), *self._control(END)))

    def digits(self) -> list[int]:
        """Token ids of the digits 0..5."""
        return [self._text(digit)[0] for digit in DIGITS]

    def _text(self, text: str) -> tuple[int, ...]:
        ids: Any = self.tokenizer(text, split_special_tokens=True, add_special_tokens=False).input_ids
        return tuple(ids)

    def _control(self, token: str) -> tuple[int, ...]:
        return (int(self.tokenizer.convert_tokens_to_ids(token)),)


def collate(
    rows: Sequence[Row], model: Any, tokenizer: PreTrainedTokenizerBase, settings: EditScoreSettings
) -> dict[str, Tensor]:
    """Tensors of B rows, padded on the left to L tokens; `model` is the backbone's inner model (for positions).

    `pixel_values` and `image_grid_thw` hold each distinct image once, `images` says which of them stand in the rows, in
    order. `targets` (B, L) has the answers' token ids where they stand and -100 elsewhere.
    """
    vision = model.config.vision_config
    image_id = int(tokenizer.convert_tokens_to_ids(IMAGE))
    seen: dict[tuple[object, ...], int] = {}
    pixels, grids, images, sequences = [], [], [], []
    for row in rows:
        ids: list[int] = []
        for part in row.prompt:
            if isinstance(part, tuple):
                ids += part
                continue
            if part.key not in seen:
                seen[part.key] = len(seen)
                values, grid = _patches(part, vision, settings)
                pixels.append(values)
                grids.append(grid)
            index = seen[part.key]
            images.append(index)
            ids += [image_id] * (int(grids[index].prod()) // vision.spatial_merge_size**2)
        sequences.append((ids, row.answer))
    length = max(len(ids) + len(answer) for ids, answer in sequences)
    input_ids = torch.full((len(rows), length), int(tokenizer.pad_token_id))
    mask, targets = torch.zeros_like(input_ids), torch.full_like(input_ids, IGNORED)
    for place, (ids, answer) in enumerate(sequences):
        start = length - len(ids) - len(answer)
        input_ids[place, start:] = torch.tensor([*ids, *answer])
        mask[place, start:] = 1
        if answer:
            targets[place, -len(answer) :] = torch.tensor(answer)
    grid, order = torch.stack(grids), torch.tensor(images)
    positions, _ = model.get_rope_index(
        input_ids, mm_token_type_ids=(input_ids == image_id).int(), image_grid_thw=grid[order], attention_mask=mask
    )
    return {
        "input_ids": input_ids, "attention_mask": mask, "position_ids": positions, "pixel_values": torch.cat(pixels),
        "image_grid_thw": grid, "images": order, "targets": targets,
    }  # fmt: skip


def _patches(shown: Shown, vision: Any, settings: EditScoreSettings) -> tuple[Tensor, Tensor]:
    import numpy as np
    from PIL import Image as Pil
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    patch, merge = vision.patch_size, vision.spatial_merge_size
    height, width = smart_resize(
        *shown.first.shape[:2], factor=patch * merge, min_pixels=settings.min_pixels, max_pixels=settings.max_pixels
    )
    both = np.stack(
        [
            np.asarray(Pil.fromarray(one).resize((width, height), Pil.Resampling.BICUBIC))
            for one in (shown.first, shown.second)
        ]
    )
    x = torch.from_numpy(both).float() / 127.5 - 1
    rows, columns = height // (patch * merge), width // (patch * merge)
    blocks = x.reshape(2, rows, merge, patch, columns, merge, patch, 3).permute(1, 4, 2, 5, 7, 0, 3, 6)
    return blocks.reshape(rows * columns * merge**2, -1), torch.tensor([1, height // patch, width // patch])

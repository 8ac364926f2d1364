"""Tiny EditScore models of both families, and the plain Hugging Face way to what they compute."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen3VLForConditionalGeneration

from editloop.models.backbones.picture_inputs import Patches, normalised_patches
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.rows import PromptRow
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import EditGroup
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config

CLASSES = {"qwen2.5-vl": Qwen2_5_VLForConditionalGeneration, "qwen3-vl": Qwen3VLForConditionalGeneration}
SHORT: dict[str, Any] = {
    "system": "",
    "sc": "{instruction}?",
    "pq": "clean?",
    "closing": "",
    "min_pixels": 64,
    "max_pixels": 1024,
    "max_new_tokens": 24,
}


def tiny_score(
    family: str = "qwen2.5-vl", seed: int = 0, key_heads: int | None = None, **settings: Any
) -> EditScoreModel:
    """An untrained model. Its weights are thrice the usual, so that what it says hangs on what it sees."""
    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    config = tiny_config(family, tokenizer)
    config.text_config.num_key_value_heads = key_heads or config.text_config.num_key_value_heads
    model = EditScoreModel(CLASSES[family](config), tokenizer, EditScoreSettings(**(SHORT | settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.eval()


def write_checkpoint(folder: Path) -> Path:
    """Write a tiny model as vision-language models are published: nothing but Hugging Face's files."""
    model = tiny_score()
    model.backbone.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def some_groups(seed: int = 0) -> list[EditGroup]:
    """Two groups, of two edits and of one, with pictures of three sizes."""
    rng = np.random.default_rng(seed)

    def picture(height: int, width: int) -> np.ndarray:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)

    return [
        EditGroup("make it <|image_pad|> red", picture(32, 32), [picture(32, 32), picture(32, 32)]),
        EditGroup("小さく", picture(16, 24), [picture(24, 24)]),
    ]


def plain_inputs(model: EditScoreModel, row: PromptRow) -> dict[str, torch.Tensor]:
    """What a processor would give the Hugging Face model for this row alone, its answer at the end."""
    marks, ids = model.rows.marks, list[int]()
    for part in row.prompt:
        pads = [marks.image] * part.tokens(marks.merge) if isinstance(part, Patches) else []
        ids += [marks.start, *pads, marks.end] if isinstance(part, Patches) else part
    whole = torch.tensor([[*ids, *row.answer]])
    pictures = [part for part in row.prompt if isinstance(part, Patches)]
    return {
        "input_ids": whole,
        "attention_mask": torch.ones_like(whole),
        "mm_token_type_ids": (whole == marks.image).int(),
        "pixel_values": torch.cat([normalised_patches(one.values, one.scale, 2) for one in pictures]),
        "image_grid_thw": torch.tensor([one.grid for one in pictures]),
    }


def plain_loss(model: EditScoreModel, row: PromptRow) -> torch.Tensor:
    """Sum of the answer tokens' cross-entropies by the Hugging Face model, one row a pass."""
    inputs = plain_inputs(model, row)
    labels = inputs["input_ids"].clone()
    labels[:, : -len(row.answer)] = -100
    return model.backbone(**inputs, labels=labels).loss * len(row.answer)


def plain_greedy(model: EditScoreModel, row: PromptRow, tokens: int) -> list[int]:
    """The Hugging Face model's own generate, one call a row."""
    inputs = plain_inputs(model, row)
    made = model.backbone.generate(
        **inputs, do_sample=False, max_new_tokens=tokens, eos_token_id=model.rows.end, pad_token_id=0
    )
    return made[0, inputs["input_ids"].shape[1] :].tolist()

"""Make a judge's folder of released EditReward weights and their base: `editloop judge add editreward`.

A release is safetensors with the backbone and the heads `rm_heads.head_{0,1}.{0,3,5}.{weight,bias}`, and nothing else.
Configuration, tokenizer, image processor and chat template are those of the base it was trained on.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from editloop.content import MANIFEST, complete_folder
from editloop.errors import EditLoopError
from editloop.models.backbones.chat_opening import chat_opening
from editloop.models.backbones.checkpoints import (
    EMBEDDING,
    FAMILIES,
    OUTPUT_LAYER,
    backbone_key,
    empty_backbone,
    image_processor_of,
    read_config,
)
from editloop.models.backbones.weight_files import (
    SHARD_BYTES,
    StoredTensor,
    check_keys,
    copy_weights,
    read_tensors,
    survey_weights,
)
from editloop.models.edit_reward.checkpoints import HEADS, add_token, read_tokenizer
from editloop.models.edit_reward.inputs import InputMaker
from editloop.models.edit_reward.model import HEADS_FILE, SETTINGS, reward_head
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_reward.wording import ReleasedWording
from editloop.models.judge_protocol import warn_of_no_wording, wording_facts

LOG = logging.getLogger(__name__)
POSITIONS: dict[str, Literal["mrope", "flat"]] = {"qwen2_5_vl": "flat", "qwen3_vl": "mrope"}
"""Positions with which the released weights of a family were trained."""
INSTRUCTION_TOKENS = 4096
"""Tokens of an instruction that is read whole. The published code cuts none."""
FIXED_PIXELS = {"qwen2_5_vl": 448 * 448}
"""Pixels to which a family's pictures were scaled in training. Without one they had the bounds of the processor."""


class _Parts(NamedTuple):
    """Tensors of a release by their names in a model's folder."""

    backbone: dict[str, StoredTensor]
    heads: dict[str, StoredTensor]


def add_editreward(
    weights: Path,
    base: Path,
    out: Path,
    *,
    wording: ReleasedWording | None = None,
    positions: Literal["mrope", "flat"] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> RewardSettings:
    """Write a reward model's folder from released weights and the folder of their base.

    All keys and shapes are checked before anything is written. Weights keep their types and are copied file by file.

    Args:
        weights: The release: a safetensors file, or a folder of them.
        base: Folder of the base: configuration, tokenizer, image processor and chat template. Its weights are not read.
        out: The folder to write. One that an earlier call wrote is replaced.
        wording: The wording with which the weights were trained; None takes EditLoop's own, and marks the model.
        positions: None takes those with which the family's release was trained.
        shard_bytes: Most bytes of a file of weights.

    Returns:
        The settings of the model.

    Raises:
        EditLoopError: The weights or the base cannot be used, do not belong together, or `out` is another folder.
    """
    if out.exists() and not ((out / MANIFEST).is_file() and (out / SETTINGS).is_file()):
        raise EditLoopError(f"--out {out}: is there, and no reward model's folder. Give a new folder.")
    if wording is None:
        warn_of_no_wording(weights)
    config, tokenizer = read_config(base), read_tokenizer(base)
    parts = _parts(survey_weights(weights), weights)
    add_token(tokenizer)
    _fit_vocabulary(config, len(tokenizer), parts, weights)
    check_keys(parts.backbone, empty_backbone(config, generates=False).state_dict(), str(weights))
    settings = _settings(base, config, tokenizer, wording, positions)
    InputMaker(config, tokenizer, settings)  # checks that the tokenizer reads the wording
    with torch.device("meta"):
        heads = torch.nn.ModuleDict(
            {f"head_{head}": reward_head(config.text_config.hidden_size) for head in range(settings.heads)}
        )
    check_keys(parts.heads, heads.state_dict(prefix=HEADS), f"{weights}: heads")
    facts = {"weights": str(weights), "base": str(base), **wording_facts(settings)}
    with complete_folder(out, facts) as folder:
        config.architectures = [FAMILIES[config.model_type].encoder.__name__]
        config.save_pretrained(folder / "backbone")
        tokenizer.save_pretrained(folder / "tokenizer")
        copy_weights(parts.backbone, folder / "backbone", shard_bytes)
        save_file(dict(read_tensors(parts.heads)), folder / HEADS_FILE, {"format": "pt"})
        (folder / SETTINGS).write_text(settings.model_dump_json(indent=2) + "\n")
        LOG.info("digests of %s are computed", out)
    return settings


def _parts(tensors: Mapping[str, StoredTensor], weights: Path) -> _Parts:
    """Sort a release's tensors. The output layer, which no score needs, is left out."""
    parts = _Parts({}, {})
    for key, stored in tensors.items():
        if key.startswith(HEADS):
            parts.heads[key] = stored
        elif not key.startswith(OUTPUT_LAYER):
            name = backbone_key(key)
            if name in parts.backbone:
                raise EditLoopError(f"{weights}: {key} and {parts.backbone[name].key} are one weight. Fetch it again.")
            parts.backbone[name] = stored
    if not parts.heads:
        raise EditLoopError(
            f"{weights}: no {HEADS}* among its keys; a bare backbone scores nothing. Train a reward model on it, or "
            "give released weights that have heads."
        )
    return parts


def _fit_vocabulary(config: Any, tokens: int, parts: _Parts, weights: Path) -> None:
    """Set the configuration's vocabulary to the tokenizer's, and check that the weights have a row for each token.

    A release has as many rows as its tokenizer has tokens, or those of the base's padded embedding, which are cut.
    """
    padded, config.text_config.vocab_size = config.text_config.vocab_size, tokens
    stored = parts.backbone.get(EMBEDDING)
    if stored is None or len(stored.shape) != 2:
        return  # check_keys names it
    rows = stored.shape[0]
    if rows not in (tokens, max(padded, tokens)):
        raise EditLoopError(
            f"{weights}: the embedding has {rows:,} rows, and the base's tokenizer {tokens:,} tokens with <|Reward|>. "
            "Give the base that these weights were trained on."
        )
    parts.backbone[EMBEDDING] = stored._replace(shape=(tokens, *stored.shape[1:]))


def _settings(
    base: Path,
    config: Any,
    tokenizer: PreTrainedTokenizerBase,
    wording: ReleasedWording | None,
    positions: Literal["mrope", "flat"] | None,
) -> RewardSettings:
    processor = image_processor_of(base)
    pixels = FIXED_PIXELS.get(config.model_type)
    bounds = (pixels, pixels) if pixels else (processor.min_pixels, processor.max_pixels)
    if None in bounds:
        raise EditLoopError(
            f"{base}: no file of its image processor says how large pictures are (size, or min_pixels and max_pixels). "
            "Take the preprocessor_config.json that the base was published with."
        )
    opening = wording.opening if wording and wording.opening is not None else chat_opening(base, config, tokenizer)
    return RewardSettings.model_validate(
        {
            "order": "official",
            "rubrics": wording.rubrics if wording else (),
            "opening": opening,
            "wording": "trained" if wording else "substitute",
            "positions": positions or POSITIONS[config.model_type],
            "min_pixels": bounds[0],
            "max_pixels": bounds[1],
            "instruction_tokens": INSTRUCTION_TOKENS,
            **processor.normalisation,
        }
    )

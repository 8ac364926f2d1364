"""Read backbones and released EditReward checkpoints from Hugging Face folders.

The safetensors files of a released checkpoint hold the backbone and the heads
`rm_heads.head_{0,1}.{0,3,5}.{weight,bias}`.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from editloop.errors import EditLoopError
from editloop.models.backbones.checkpoints import image_normalisation, load_backbone, open_shard, read_weights
from editloop.models.backbones.text import control_id
from editloop.models.edit_reward.inputs import REWARD_TOKEN

HEADS = "rm_heads."
"""Prefix of the heads' keys."""


class LoadedBackbone(NamedTuple):
    """A backbone in memory, with its tokenizer and its image normalisation."""

    backbone: Any
    tokenizer: PreTrainedTokenizerBase
    normalisation: dict[str, tuple[float, ...]]
    """`image_mean` and `image_std` of its image processor."""


def open_backbone(folder: Path, tokenizer: Path, dtype: torch.dtype) -> LoadedBackbone:
    """Load the backbone of a Hugging Face folder, without its output layer and any heads.

    Args:
        folder: The folder with weights and config.json.
        tokenizer: The folder of the tokenizer.
        dtype: Type of the weights.

    Raises:
        EditLoopError: The weights, configuration or tokenizer are missing, unreadable or of an unsupported model, or
            the keys do not fit the configuration.
    """
    weights = {key: value for key, value in read_weights(folder).items() if not key.startswith(HEADS)}
    return _load_backbone(folder, tokenizer, weights, dtype)


def is_released(folder: Path) -> bool:
    """Return whether a Hugging Face folder has heads among its keys: a reward model, not a bare backbone.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: A safetensors file is not readable.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return any(key.startswith(HEADS) for key in json.loads(index.read_text())["weight_map"])
    shards = map(open_shard, folder.glob("*.safetensors"))
    return any(key.startswith(HEADS) for shard in shards for key in shard.keys())  # noqa: SIM118


def open_released(folder: Path, dtype: torch.dtype) -> tuple[LoadedBackbone, dict[str, Tensor]]:
    """Load a released EditReward checkpoint.

    Args:
        folder: The Hugging Face folder.
        dtype: Type of the backbone's weights.

    Returns:
        The backbone, and the tensors of the heads by key.

    Raises:
        EditLoopError: The folder has no heads, its tokenizer has no `<|Reward|>`, or its backbone cannot be loaded.
    """
    weights = read_weights(folder)
    heads = {key: weights.pop(key) for key in list(weights) if key.startswith(HEADS)}
    if not heads:
        raise EditLoopError(
            f"{folder}: no {HEADS}* among its keys; a bare backbone scores nothing. Train a reward model on it, or "
            "give a checkpoint that has heads."
        )
    opened = _load_backbone(folder, folder, weights, dtype)
    _check_reward_token(opened, folder)
    return opened, heads


def add_reward_token(opened: LoadedBackbone) -> None:
    """Make `<|Reward|>` a special token, in place. A new token's embedding is the mean of all before it.

    Args:
        opened: The backbone and its tokenizer.
    """
    tokenizer, embedding = opened.tokenizer, opened.backbone.get_input_embeddings()
    special_tokens = [*map(str, tokenizer.all_special_tokens), REWARD_TOKEN]
    if not tokenizer.add_special_tokens({"extra_special_tokens": special_tokens}):
        return
    if len(tokenizer) > embedding.num_embeddings:
        opened.backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embedding = opened.backbone.get_input_embeddings()
    new = control_id(tokenizer, REWARD_TOKEN)
    with torch.no_grad():
        embedding.weight[new] = embedding.weight[:new].float().mean(dim=0).to(embedding.weight.dtype)


def _load_backbone(folder: Path, tokenizer: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> LoadedBackbone:
    backbone = load_backbone(folder, weights, dtype, generates=False)
    try:
        loaded_tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EditLoopError(f"{folder}: its tokenizer cannot be read ({error}).") from None
    return LoadedBackbone(backbone, loaded_tokenizer, image_normalisation(folder))


def _check_reward_token(opened: LoadedBackbone, folder: Path) -> None:
    rows = opened.backbone.get_input_embeddings().num_embeddings
    try:
        token_id = control_id(opened.tokenizer, REWARD_TOKEN)
    except EditLoopError:
        raise EditLoopError(
            f"{folder}: its tokenizer has no special token {REWARD_TOKEN}, at which the heads read. Take the tokenizer "
            "files that the checkpoint was published with."
        ) from None
    if token_id >= rows:
        raise EditLoopError(
            f"{folder}: {REWARD_TOKEN} is token {token_id}, the embedding has {rows}. The tokenizer is another model's."
        )

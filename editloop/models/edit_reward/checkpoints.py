"""Read backbones from Hugging Face folders, and give them the token at which the heads read."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from editloop.errors import EditLoopError
from editloop.models.backbones.checkpoints import load_backbone, one_line
from editloop.models.backbones.spreading import Spread
from editloop.models.backbones.text import control_id
from editloop.models.edit_reward.settings import REWARD_TOKEN

HEADS = "rm_heads."
"""Prefix of the heads' keys."""


class LoadedBackbone(NamedTuple):
    """A backbone in memory, with its tokenizer."""

    backbone: Any
    tokenizer: PreTrainedTokenizerBase


def open_backbone(
    folder: Path, tokenizer: Path, dtype: torch.dtype, *, is_base: bool = False, spread: Spread | None = None
) -> LoadedBackbone:
    """Load the backbone of a Hugging Face folder, without its output layer.

    Args:
        folder: The folder with weights and config.json.
        tokenizer: The folder of the tokenizer.
        dtype: Type of the weights.
        is_base: Whether it may not know `<|Reward|>` yet. A new token's embedding is the mean of all before it.
        spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

    Raises:
        EditLoopError: The weights, configuration or tokenizer are missing, unreadable or of an unsupported model, or
            the keys do not fit the configuration.
    """
    read = read_tokenizer(tokenizer)
    new_token = _new_id(read) if is_base else None
    backbone = load_backbone(folder, dtype, generates=False, new_token=new_token, spread=spread)
    return LoadedBackbone(backbone, read)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Read a checkpoint's tokenizer. Code in the folder is not run.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: It is missing or cannot be read.
    """
    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise EditLoopError(f"{folder}: no tokenizer.json. Take the tokenizer files that the base was published with.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # the library of tokenizers raises plain exceptions
        raise EditLoopError(f"{folder}: its tokenizer cannot be read ({one_line(error)}).") from None
    return tokenizer


def add_token(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Make `<|Reward|>` a special token, in place.

    Args:
        tokenizer: The tokenizer.

    Returns:
        Whether it is new.
    """
    special_tokens = [*map(str, tokenizer.all_special_tokens), REWARD_TOKEN]
    return bool(tokenizer.add_special_tokens({"extra_special_tokens": special_tokens}))


def new_reward_token(base: Path) -> int | None:
    """Return the id that `<|Reward|>` gets on a base; None where the base knows it.

    Args:
        base: The base's folder.

    Raises:
        EditLoopError: Its tokenizer is missing or cannot be read.
    """
    return _new_id(read_tokenizer(base))


def is_checkpoint(base: str) -> bool:
    """Return whether a training's base is a checkpoint in Hugging Face's layout, rather than a reward model.

    Args:
        base: The base: a folder, or the name of a shipped model.
    """
    return (Path(base) / "config.json").is_file()


def _new_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    return control_id(tokenizer, REWARD_TOKEN) if add_token(tokenizer) else None

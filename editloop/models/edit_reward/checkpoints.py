"""Read backbones and released EditReward checkpoints from Hugging Face folders, and check every key.

The safetensors files of a released checkpoint hold the backbone, under Qwen's newer names (`model.language_model.*`,
`model.visual.*`) or older ones (`model.layers.*`, `visual.*`), and the heads
`rm_heads.head_{0,1}.{0,3,5}.{weight,bias}`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2_5_VLModel,
    Qwen3VLModel,
)

from editloop.errors import EditLoopError
from editloop.models.backbones.text import control_id
from editloop.models.edit_reward.inputs import REWARD_TOKEN

FAMILIES: dict[str, type[PreTrainedModel]] = {"qwen2_5_vl": Qwen2_5_VLModel, "qwen3_vl": Qwen3VLModel}
"""Backbone classes by the `model_type` of a config.json."""
NORMALISATION = {
    "qwen2_5_vl": {
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "qwen3_vl": {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
}
"""Normalisation by the families' image processors, for a checkpoint without a preprocessor_config.json."""
HEADS = "rm_heads."
"""Prefix of the heads' keys."""
UNUSED = ("lm_head.",)
"""Prefixes of keys that are left out: a reward model does not use a generator's output layer."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Suffixes of pickled weights, which are refused."""
KEYS_LISTED = 4
"""Keys that an error message lists, at most."""


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
    weights = read_weights(folder)
    return _load_backbone(
        folder, tokenizer, {key: value for key, value in weights.items() if not key.startswith(HEADS)}, dtype
    )


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
    shards = map(_shard, folder.glob("*.safetensors"))
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
    if not tokenizer.add_special_tokens({"extra_special_tokens": [*_extra(tokenizer), REWARD_TOKEN]}):
        return
    if len(tokenizer) > embedding.num_embeddings:
        opened.backbone.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        embedding = opened.backbone.get_input_embeddings()
    new = control_id(tokenizer, REWARD_TOKEN)
    with torch.no_grad():
        embedding.weight[new] = embedding.weight[:new].float().mean(dim=0).to(embedding.weight.dtype)


def _extra(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the special tokens that the tokenizer already has and must keep."""
    return [str(token) for token in tokenizer.all_special_tokens]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read all tensors of a folder's safetensors files, by key. With an index, only the files that it names are read.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: There are only pickled weights or none, a file is missing or unreadable, the files do not match
            the index, or a key occurs twice.
    """
    index = folder / "model.safetensors.index.json"
    shard_by_key: dict[str, str] = json.loads(index.read_text())["weight_map"] if index.is_file() else {}
    names = sorted(set(shard_by_key.values()) or {path.name for path in folder.glob("*.safetensors")})
    if not names:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        reason = f"only pickled ones ({', '.join(pickled)}), which run code when they are opened" if pickled else "none"
        raise EditLoopError(f"{folder}: no safetensors weights, {reason}. Convert the checkpoint to safetensors.")
    tensors: dict[str, Tensor] = {}
    for name in names:
        path = folder / name
        if path.resolve().parent != folder.resolve() and not path.is_file():
            raise EditLoopError(f"{index}: names {name!r}; a shard is a file of that folder.")
        shard = _shard(path)
        for key in shard.keys():  # noqa: SIM118
            if key in tensors or (shard_by_key and shard_by_key.get(key) != name):
                raise EditLoopError(f"{path}: key {key} is not expected here; the shards and the index disagree.")
            tensors[key] = shard.get_tensor(key)
    absent = sorted(shard_by_key.keys() - tensors.keys())
    if absent:
        raise EditLoopError(f"{folder}: the index names {_first_keys(absent)}, which no shard holds. Fetch it again.")
    return tensors


def _shard(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise EditLoopError(f"{path}: not a readable safetensors file ({error}). Fetch the checkpoint again.") from None


def check_keys(stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], what: str) -> None:
    """Check that tensors have the expected keys and shapes.

    Args:
        stored: The tensors to check.
        expected: Tensors with the expected keys and shapes.
        what: What the message calls the checkpoint.

    Raises:
        EditLoopError: Keys are missing or surplus, or shapes are wrong. The message names the first of each.
    """
    missing, surplus = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    wrong = [
        f"{key} {tuple(stored[key].shape)} for {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & stored.keys())
        if stored[key].shape != expected[key].shape
    ]
    faults = [
        f"{kind} {_first_keys(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("of wrong shape", wrong))
        if keys
    ]
    if faults:
        raise EditLoopError(f"{what}: {'; '.join(faults)}. This is not a checkpoint of that model, or not a whole one.")


def backbone_key(key: str) -> str:
    """Return the backbone class's name of a checkpoint's key.

    Args:
        key: The key, by Qwen's newer or older names.
    """
    inner = key.removeprefix("model.")
    if inner.startswith(("language_model.", "visual.")):
        return inner
    return f"language_model.{inner}" if inner != key else key


def _load_backbone(folder: Path, tokenizer: Path, weights: dict[str, Tensor], dtype: torch.dtype) -> LoadedBackbone:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        loaded_tokenizer = AutoTokenizer.from_pretrained(tokenizer, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EditLoopError(f"{folder}: its config or tokenizer cannot be read ({error}).") from None
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise EditLoopError(
            f"{folder}: model_type {config.model_type!r}; backbones are {', '.join(FAMILIES)} (MiMo-VL is the first)."
        )
    state = {backbone_key(key): value for key, value in weights.items() if not key.startswith(UNUSED)}
    with torch.device("meta"):
        expected = family._from_config(config).state_dict()
    check_keys(state, expected, str(folder))
    backbone = family.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    return LoadedBackbone(backbone, loaded_tokenizer, _normalisation(folder, config.model_type))


def _normalisation(folder: Path, family: str) -> dict[str, tuple[float, ...]]:
    path = folder / "preprocessor_config.json"
    preprocessor = json.loads(path.read_text()) if path.is_file() else {}
    return {name: tuple(preprocessor.get(name, usual)) for name, usual in NORMALISATION[family].items()}


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


def _first_keys(keys: list[str]) -> str:
    return ", ".join(keys[:KEYS_LISTED]) + (f" and {len(keys) - KEYS_LISTED} more" if len(keys) > KEYS_LISTED else "")

"""Backbones and released EditReward checkpoints: Hugging Face folders, their keys checked one by one.

A released checkpoint holds, in one or several safetensors files, the backbone under Qwen's newer names
(`model.language_model.*`, `model.visual.*`) or older ones (`model.layers.*`, `visual.*`), and the heads
`rm_heads.head_{0,1}.{0,3,5}.{weight,bias}`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, Qwen2_5_VLModel, Qwen3VLModel

from editloop.errors import EditLoopError
from editloop.models.backbones.text import control_id
from editloop.models.edit_reward.inputs import REWARD_TOKEN

FAMILIES = {"qwen2_5_vl": Qwen2_5_VLModel, "qwen3_vl": Qwen3VLModel}
NORMALISATION = {
    "qwen2_5_vl": {
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
    },
    "qwen3_vl": {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
}
"""Of the families' image processors, for a checkpoint that comes without its own."""
HEADS = "rm_heads."
UNUSED = ("lm_head.",)
"""A generator's output layer: a reward model does not read it."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
KEYS_LISTED = 4


class LoadedBackbone(NamedTuple):
    """A backbone in memory, with what belongs to it."""

    backbone: Any
    tokenizer: PreTrainedTokenizerBase
    normalisation: dict[str, tuple[float, ...]]
    """`image_mean` and `image_std` of its image processor."""


def open_backbone(folder: Path, tokenizer: Path, dtype: torch.dtype) -> LoadedBackbone:
    """The backbone of a Hugging Face folder, its output layer and any heads left out."""
    weights = read_weights(folder)
    return _load_backbone(
        folder, tokenizer, {key: value for key, value in weights.items() if not key.startswith(HEADS)}, dtype
    )


def is_released(folder: Path) -> bool:
    """Whether a Hugging Face folder has heads among its keys, so that it is a reward model and not a bare backbone."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return any(key.startswith(HEADS) for key in json.loads(index.read_text())["weight_map"])
    shards = map(_shard, folder.glob("*.safetensors"))
    return any(key.startswith(HEADS) for shard in shards for key in shard.keys())  # noqa: SIM118


def open_released(folder: Path, dtype: torch.dtype) -> tuple[LoadedBackbone, dict[str, Tensor]]:
    """A released EditReward checkpoint: its backbone, and its heads by key."""
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
    """Make `<|Reward|>` a special token; its embedding, where it is new, is the mean of all others."""
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
    """Special tokens that it has already and must keep."""
    return [str(token) for token in tokenizer.all_special_tokens]


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a folder's safetensors files by key; with an index, those of the files that it names.

    EditLoopError for pickled weights, a file that is missing, unreadable or does not hold what the index says, and a
    key that stands twice.
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
    """EditLoopError for missing or surplus keys and wrong shapes, which it names."""
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
    """A checkpoint's key, by Qwen's newer or older names, as the backbone class has it."""
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

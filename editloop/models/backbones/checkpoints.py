"""Read Qwen2.5-VL and Qwen3-VL from Hugging Face folders, and check every key.

The keys have Qwen's newer names (`model.language_model.*`, `model.visual.*`) or older ones (`model.layers.*`,
`visual.*`).
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
    GenerationConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLModel,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)
from transformers.utils import GENERATION_CONFIG_NAME

from editloop.errors import EditLoopError


class BackboneFamily(NamedTuple):
    """A family of models, and the normalisation of its image processor."""

    encoder: type[PreTrainedModel]
    """The model without its output layer."""
    generator: type[PreTrainedModel]
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]


FAMILIES = {
    "qwen2_5_vl": BackboneFamily(
        Qwen2_5_VLModel,
        Qwen2_5_VLForConditionalGeneration,
        (0.48145466, 0.4578275, 0.40821073),
        (0.26862954, 0.26130258, 0.27577711),
    ),
    "qwen3_vl": BackboneFamily(Qwen3VLModel, Qwen3VLForConditionalGeneration, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Families by the `model_type` of a config.json."""
OUTPUT_LAYER = "lm_head."
"""Prefix of the keys of a generator's output layer."""
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Suffixes of pickled weights, which are refused."""
KEYS_LISTED = 4
"""Keys that an error message lists, at most."""


def empty_backbone(folder: Path, *, generates: bool) -> Any:
    """Return a folder's model without weights, on the meta device. Code in the folder is not run.

    Args:
        folder: The folder.
        generates: Whether the model has its output layer.

    Raises:
        EditLoopError: The configuration is missing, unreadable or of another model.
    """
    config = _config(folder)
    family = FAMILIES[config.model_type]
    with torch.device("meta"):
        return (family.generator if generates else family.encoder)._from_config(config)


def load_backbone(folder: Path, weights: Mapping[str, Tensor], dtype: torch.dtype, *, generates: bool) -> Any:
    """Return a folder's model, in evaluation mode. A missing output layer may be tied to the input embedding.

    Args:
        folder: The folder with the configuration.
        weights: Its tensors, as `read_weights` returns them.
        dtype: Type of the weights in memory.
        generates: Whether the model has its output layer.

    Raises:
        EditLoopError: The configuration cannot be used, or the keys do not fit it.
    """
    empty = empty_backbone(folder, generates=generates)
    expected = empty.state_dict()
    used = {key: value for key, value in weights.items() if generates or not key.startswith(OUTPUT_LAYER)}
    state = {
        key if key.startswith(OUTPUT_LAYER) else "model." * generates + backbone_key(key): value
        for key, value in used.items()
    }
    if empty.config.tie_word_embeddings:
        expected = {key: value for key, value in expected.items() if key in state or not key.startswith(OUTPUT_LAYER)}
    check_keys(state, expected, str(folder))
    # A generator gets the keys as they are: transformers renames them, and back again where the model is saved.
    stored = used if generates else state
    backbone = type(empty).from_pretrained(None, config=empty.config, state_dict=stored, dtype=dtype)
    if generates and (folder / GENERATION_CONFIG_NAME).is_file():
        backbone.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return backbone


def image_normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
    """Return `image_mean` and `image_std` of a folder's image processor, or else its family's.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: The configuration is missing, unreadable or of another model.
    """
    family, path = FAMILIES[_config(folder).model_type], folder / "preprocessor_config.json"
    preprocessor = json.loads(path.read_text()) if path.is_file() else {}
    return {name: tuple(preprocessor.get(name, getattr(family, name))) for name in ("image_mean", "image_std")}


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
        shard = open_shard(path)
        for key in shard.keys():  # noqa: SIM118
            if key in tensors or (shard_by_key and shard_by_key.get(key) != name):
                raise EditLoopError(f"{path}: key {key} is not expected here; the shards and the index disagree.")
            tensors[key] = shard.get_tensor(key)
    absent = sorted(shard_by_key.keys() - tensors.keys())
    if absent:
        raise EditLoopError(f"{folder}: the index names {_first_keys(absent)}, which no shard holds. Fetch it again.")
    return tensors


def open_shard(path: Path) -> Any:
    """Open a safetensors file to read its keys and tensors.

    Args:
        path: The file.

    Raises:
        EditLoopError: It is not readable.
    """
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


def _config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EditLoopError(f"{folder}: its config cannot be read ({error}).") from None
    if config.model_type not in FAMILIES:
        raise EditLoopError(
            f"{folder}: model_type {config.model_type!r}; backbones are {', '.join(FAMILIES)} (MiMo-VL is the first)."
        )
    return config


def _first_keys(keys: list[str]) -> str:
    return ", ".join(keys[:KEYS_LISTED]) + (f" and {len(keys) - KEYS_LISTED} more" if len(keys) > KEYS_LISTED else "")

"""Read Qwen2.5-VL and Qwen3-VL from Hugging Face folders, after a check of every key.

The keys have Qwen's newer names (`model.language_model.*`, `model.visual.*`) or older ones (`model.layers.*`,
`visual.*`).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as distributed
from accelerate import init_empty_weights
from huggingface_hub.errors import StrictDataclassError
from pydantic import BaseModel, Field
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
from editloop.models.backbones.config_values import check_config_values
from editloop.models.backbones.image_processor import ImageProcessor, read_image_processor
from editloop.models.backbones.spreading import ParameterSpreader, Spread, fill
from editloop.models.backbones.weight_files import StoredTensor, check_keys, read_tensors, survey_weights
from editloop.settings_file import validate_settings
from editloop.text_file import file_bytes


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
EMBEDDING = "language_model.embed_tokens.weight"
"""Name of the token embedding in a model without output layer."""


def empty_backbone(config: Any, *, generates: bool) -> Any:
    """Return a model without weights, on the meta device.

    Args:
        config: Its configuration, as `read_config` returns it.
        generates: Whether the model has its output layer.

    Raises:
        EditLoopError: The configuration's values make no model.
    """
    family = FAMILIES[config.model_type]
    try:
        with torch.device("meta"):
            return (family.generator if generates else family.encoder)._from_config(config)
    except (ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RuntimeError) as error:
        raise EditLoopError(
            f"config of {config.model_type}: makes no model ({one_line(error)}). Take the config.json that the "
            "checkpoint was published with."
        ) from None


def load_backbone(
    folder: Path,
    dtype: torch.dtype,
    *,
    generates: bool,
    new_token: int | None = None,
    spread: Spread | None = None,
) -> Any:
    """Return a folder's model, in evaluation mode. A missing output layer may be tied to the input embedding.

    Keys, shapes and types are checked before a tensor is read. Tensors are read one after the other.

    Args:
        folder: The folder with configuration and weights.
        dtype: Type of the weights in memory.
        generates: Whether the model has its output layer.
        new_token: Id of a token that the weights do not know: its embedding becomes the mean of all before it.
        spread: Where each rank of a job keeps its part of the weights; None: this process has them whole.

    Raises:
        EditLoopError: The configuration or the weights cannot be used, or the keys do not fit it.
    """
    config = read_config(folder)
    tensors = fitting_tensors(folder, empty_backbone(config, generates=generates), generates=generates)
    if new_token is not None:
        config.text_config.vocab_size = max(config.text_config.vocab_size, new_token + 1)
    family = FAMILIES[config.model_type]
    with init_empty_weights(include_buffers=False):  # buffers are computed, not read
        backbone = (family.generator if generates else family.encoder)._from_config(config)
    backbone.tie_weights()
    spreader = ParameterSpreader(spread) if spread else None
    reads = spreader is None or distributed.get_rank() == 0
    for name, parameter in backbone.named_parameters():
        value = None
        if reads:
            _, value = next(read_tensors({name: tensors[name]}))
            if new_token is not None and name == EMBEDDING:
                value = add_embedding(value, new_token)
        if spreader:
            spreader.place(parameter, value, dtype)
        elif value is not None:
            fill(parameter, value.to(dtype))
    backbone.config.dtype = dtype
    if generates and (folder / GENERATION_CONFIG_NAME).is_file():
        backbone.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return backbone.eval()


def add_embedding(embedding: Tensor, token: int) -> Tensor:
    """Return token embeddings with the mean of all tokens before it as the embedding of a new one.

    Args:
        embedding: (tokens, width). Rows are added where it has none for the token.
        token: Id of the new token.
    """
    grown = embedding.new_empty(max(len(embedding), token + 1), embedding.shape[1])
    grown[: len(embedding)] = embedding
    grown[token] = grown[:token].mean(dim=0, dtype=torch.float32)
    return grown


def outline_backbone(folder: Path, *, generates: bool) -> Any:
    """Return a folder's model without weights, after a check of all that `load_backbone` would read.

    Args:
        folder: The folder with configuration and weights.
        generates: Whether the model has its output layer.

    Raises:
        EditLoopError: As for `load_backbone`.
    """
    empty = empty_backbone(read_config(folder), generates=generates)
    for _ in read_tensors(fitting_tensors(folder, empty, generates=generates)):
        pass  # each is looked at and let go
    return empty


def fitting_tensors(folder: Path, empty: Any, *, generates: bool) -> dict[str, StoredTensor]:
    """Return a folder's tensors by their names in the empty model, after a check of keys and shapes.

    Args:
        folder: The folder of the weights.
        empty: The model, as `empty_backbone` returns it.
        generates: Whether the model has its output layer.

    Raises:
        EditLoopError: The weights cannot be used, or do not fit the model.
    """
    tensors: dict[str, StoredTensor] = {}
    for key, stored in survey_weights(folder).items():
        is_output = key.startswith(OUTPUT_LAYER)
        name = key if is_output else "model." * generates + backbone_key(key)
        if name in tensors:
            raise EditLoopError(f"{folder}: {key} and {tensors[name].key} are one weight. Fetch the checkpoint again.")
        if generates or not is_output:
            tensors[name] = stored
    expected = empty.state_dict()
    if empty.config.tie_word_embeddings:
        expected = {key: value for key, value in expected.items() if key in tensors or not key.startswith(OUTPUT_LAYER)}
    check_keys(tensors, expected, str(folder))
    return tensors


def image_processor_of(folder: Path) -> ImageProcessor:
    """Return what a checkpoint says of its pictures; without a processor's file, its family's normalisation.

    Args:
        folder: The checkpoint's folder.

    Raises:
        EditLoopError: The configuration or the processor's file cannot be used.
    """
    family = FAMILIES[read_config(folder).model_type]
    return read_image_processor(folder) or ImageProcessor(family.image_mean, family.image_std, None, None)


class GenerationValues(BaseModel):
    """What is read of a checkpoint's generation settings."""

    repetition_penalty: float = Field(1.0, gt=0)


def generation_values(folder: Path) -> GenerationValues:
    """Return a checkpoint's generation settings; without a file of them, those that change nothing.

    Args:
        folder: The checkpoint's folder.

    Raises:
        EditLoopError: The file cannot be read, or a value is not valid.
    """
    path = folder / GENERATION_CONFIG_NAME
    if not path.is_file():
        return GenerationValues()
    try:
        content = json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({one_line(error)}). Fetch it again.") from None
    return validate_settings(GenerationValues, content, f"generation settings {path}", "Fetch the file again.")


def backbone_key(key: str) -> str:
    """Return the backbone class's name of a checkpoint's key.

    Args:
        key: The key, by Qwen's newer or older names.
    """
    inner = key.removeprefix("model.")
    if inner.startswith(("language_model.", "visual.")):
        return inner
    return f"language_model.{inner}" if inner != key else key


def read_config(folder: Path) -> Any:
    """Return the configuration of a checkpoint. Code in the folder is not run.

    Args:
        folder: The checkpoint's folder.

    Raises:
        EditLoopError: It is missing, unreadable, of another model, of a quantised one, or asks for too many layers.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise EditLoopError(f"{folder}: no config.json; give the folder of a checkpoint in Hugging Face's layout.")
    try:
        check_config_values(path)
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, StrictDataclassError) as error:
        raise EditLoopError(f"{folder}: its config cannot be read ({one_line(error)}).") from None
    if config.model_type not in FAMILIES:
        raise EditLoopError(
            f"{folder}: model_type {config.model_type!r}; backbones are {', '.join(FAMILIES)} (MiMo-VL is the first)."
        )
    return config


def one_line(error: Exception) -> str:
    """Return an error's message in one line.

    Args:
        error: The error.
    """
    return " ".join(str(error).split())

"""Write a trained judge's backbone from its base and its trained state, a tensor at a time."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from editloop.models.backbones.checkpoints import (
    EMBEDDING,
    FAMILIES,
    OUTPUT_LAYER,
    add_embedding,
    empty_backbone,
    fitting_tensors,
    read_config,
)
from editloop.models.backbones.weight_files import (
    StoredTensor,
    TensorOutline,
    read_tensors,
    survey_weights,
    write_weights,
)
from editloop.models.lora_settings import LoraSettings

PREFIX = "backbone."
"""Prefix of the backbone's parameter names in a judge."""


def write_trained_backbone(
    base: Path,
    state: Path,
    out: Path,
    dtype: torch.dtype,
    *,
    generates: bool,
    adapter: LoraSettings | None = None,
    new_token: int | None = None,
) -> None:
    """Write the weights that a training ends with in Hugging Face's format, an adapter merged.

    Args:
        base: Folder of the weights that the training began with.
        state: File of the trained parameters, as `TrainingOutcome.state`. Others are the base's.
        out: The folder to write into.
        dtype: Type of the weights.
        generates: Whether the model has its output layer.
        adapter: The adapter that was trained; None where weights themselves were.
        new_token: Id of a token that the base does not know, as for `load_backbone`.

    Raises:
        EditLoopError: The base's files have changed, or a trained value is not finite.
    """
    config = read_config(base)
    stored = fitting_tensors(base, empty_backbone(config, generates=generates), generates=generates)
    if config.tie_word_embeddings:
        stored = {name: tensor for name, tensor in stored.items() if not name.startswith(OUTPUT_LAYER)}
    trained = survey_weights(state)

    def value(name: str, tensor: StoredTensor) -> Tensor:
        if PREFIX + name in trained:
            return _read(trained[PREFIX + name])
        weight = _read(tensor)
        if new_token is not None and name == EMBEDDING:
            weight = add_embedding(weight, new_token)
        down, up = (f"{PREFIX}{name.removesuffix('weight')}lora_{factor}.default.weight" for factor in "AB")
        if adapter and down in trained:
            change = _read(trained[up]).float() @ _read(trained[down]).float()
            weight = weight.to(dtype).float().add(change, alpha=adapter.alpha / adapter.rank)
        return weight

    def values() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in stored.items():
            yield keys[name], value(name, tensor)

    # A generator keeps its checkpoint's keys, which transformers knows.
    keys = {name: tensor.key if generates else name for name, tensor in stored.items()}
    outline = {keys[name]: TensorOutline(tensor.shape, dtype) for name, tensor in stored.items()}
    if new_token is not None:
        width = outline[EMBEDDING].shape[1:]
        config.text_config.vocab_size = max(config.text_config.vocab_size, new_token + 1)
        outline[EMBEDDING] = TensorOutline((config.text_config.vocab_size, *width), dtype)
    family = FAMILIES[config.model_type]
    config.architectures = [(family.generator if generates else family.encoder).__name__]
    config.dtype = dtype
    config.save_pretrained(out)
    write_weights(out, outline, values())


def _read(stored: StoredTensor) -> Tensor:
    return next(tensor for _, tensor in read_tensors({stored.key: stored}))

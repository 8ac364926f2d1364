"""Step1X-Edit as v1.0 and v1.1 were released: one file of the transformer, one of the codec, and Qwen2.5-VL's folder.

The transformer's weights have FLUX.1's original names there, three or four of them in one tensor.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn
from transformers import Qwen2_5_VLForConditionalGeneration

from editloop.errors import EditLoopError
from editloop.models.backbones.config_values import check_config_values
from editloop.models.backbones.weight_files import (
    StoredTensor,
    check_keys,
    check_weight_files,
    read_tensors,
    survey_weights,
)
from editloop.models.editors.network_files import PartReader, StoredRows, fill_network, network_outline
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel

TRANSFORMER = "step1x-edit*.safetensors"
"""Pattern of the transformer's file."""
CODEC = "vae.safetensors"
"""The codec's file: FLUX.1's in its original names."""
TEXT_ENCODER = "Qwen2.5-VL-7B-Instruct"
"""Folder of the text encoder and its processor."""
PARTS = ("scheduler", "vae", "text_encoder", "processor", "transformer")
"""Names of the pipeline's parts."""
FLUX_CODEC: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
"""Configuration of FLUX.1's codec."""
FLUX_SCHEDULER: Mapping[str, Any] = {"use_dynamic_shifting": True, "shift": 3.0, "base_shift": 0.5, "max_shift": 1.15}
"""Configuration of FLUX.1's scheduler."""
SCALE_FACTOR = "connector.scale_factor"
"""A number that v1.0 alone has: the mean text is multiplied with 1 + it before the projection to the pooled text."""
POOLED = "connector.global_proj_out.weight"
"""The weight of that projection."""


class ReleasedFiles(NamedTuple):
    """Files of a release without `model_index.json`."""

    transformer: Path
    codec: Path
    text_encoder: Path


def released_files(folder: Path) -> ReleasedFiles | None:
    """Return the files of a release in a folder, or None where there is no transformer's file.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: There are several files of transformers, or the codec or the text encoder is missing.
    """
    transformers = sorted(folder.glob(TRANSFORMER)) if folder.is_dir() else []
    if not transformers:
        return None
    if len(transformers) > 1:
        raise EditLoopError(
            f"{folder}: {len(transformers)} files {TRANSFORMER}; an editor has one. Give each a folder of its own."
        )
    files = ReleasedFiles(transformers[0], folder / CODEC, folder / TEXT_ENCODER)
    missing = [path.name for path in (files.codec, files.text_encoder) if not path.exists()]
    if missing:
        raise EditLoopError(
            f"{folder}: {' and '.join(missing)} missing beside {files.transformer.name}. Put it there as it was "
            "published."
        )
    return files


def released_index(folder: Path) -> dict[str, Any] | None:
    """Return what `model_index.json` would say of a release in a folder, or None where there is no transformer's file.

    Args:
        folder: The folder.

    Raises:
        EditLoopError: A file is missing, broken, or there are several transformers.
    """
    files = released_files(folder)
    if files is None:
        return None
    release = "v1.0" if SCALE_FACTOR in survey_weights(files.transformer) else "v1.1"
    parts: dict[str, list[str]] = {name: [] for name in PARTS}
    return {"_class_name": "Step1XEditPipeline", "release": release, **parts}


def released_readers(files: ReleasedFiles) -> dict[str, PartReader]:
    """Return how the modules of a release are read.

    Args:
        files: Its files.
    """
    return {
        "transformer": PartReader(
            lambda dtype, device: read_released_network(files.transformer, dtype, device),
            lambda: network_outline(Step1XEditTransformer2DModel, {}),
        ),
        "vae": PartReader(
            lambda dtype, device: read_released_codec(files.codec, dtype, device),
            lambda: network_outline(AutoencoderKL, FLUX_CODEC),
        ),
        "text_encoder": PartReader(
            lambda dtype, device: _read_text_encoder(files.text_encoder, dtype, device), nn.Identity
        ),
    }


def _read_text_encoder(folder: Path, dtype: torch.dtype, device: torch.device) -> nn.Module:
    check_weight_files(folder)
    check_config_values(folder / "config.json")
    encoder: nn.Module = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, device_map={"": device}, local_files_only=True, use_safetensors=True
    )
    return encoder


def read_released_network(
    file: Path, dtype: torch.dtype, device: torch.device, config: Mapping[str, Any] | None = None
) -> Step1XEditTransformer2DModel:
    """Read the transformer from its single file.

    Args:
        file: The file.
        dtype: Type of the weights.
        device: Where they go.
        config: The network's configuration. None takes the released sizes.

    Raises:
        EditLoopError: A weight is missing, surplus, of the wrong shape or not finite, or the file is broken.
    """
    network: Step1XEditTransformer2DModel = network_outline(Step1XEditTransformer2DModel, config or {})
    stored = survey_weights(file)
    factors = {}
    if SCALE_FACTOR in stored:
        ((_, scale),) = read_tensors({SCALE_FACTOR: stored.pop(SCALE_FACTOR)})
        factors[POOLED] = 1.0 + float(scale)
    weights: dict[str, StoredRows] = {}
    for tensor in stored.values():
        weights |= network_weights(tensor)
    fill_network(network, weights, dtype, device, str(file), factors)
    return network


def read_released_codec(
    file: Path, dtype: torch.dtype, device: torch.device, config: Mapping[str, Any] = FLUX_CODEC
) -> AutoencoderKL:
    """Read the codec from its single file.

    Args:
        file: The file.
        dtype: Type of the weights.
        device: Where they go.
        config: The codec's configuration.

    Raises:
        EditLoopError: A weight is missing, surplus, of the wrong shape or not finite, or the file is broken.
    """
    codec: AutoencoderKL = network_outline(AutoencoderKL, config)
    weights = convert_ldm_vae_checkpoint(dict(read_tensors(survey_weights(file))), codec.config)
    check_keys(weights, codec.state_dict(), str(file))
    codec.load_state_dict(weights, assign=True)
    return codec.to(device=device, dtype=dtype)  # type: ignore[no-any-return, call-arg]  # a decorator hides its types


def flux_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """Return the scheduler of the releases without a file for it."""
    return FlowMatchEulerDiscreteScheduler(**FLUX_SCHEDULER)


def network_weights(tensor: StoredTensor) -> dict[str, StoredRows]:
    """Return which weights of the network a released tensor holds, and in which rows.

    Args:
        tensor: The tensor. An unknown name stays, so that it is named as surplus.
    """
    matches = ((re.fullmatch(pattern, tensor.key), names) for pattern, names in NAMES)
    match, names = next(((match, names) for match, names in matches if match), (None, ()))
    if match is None:
        return {tensor.key: StoredRows(tensor)}
    rows = tensor.shape[0]
    if tensor.key.startswith("final_layer.adaLN_modulation"):
        return {match.expand(names[0]): StoredRows(tensor, ((rows // 2, rows), (0, rows // 2)))}
    if len(names) == 1:
        return {match.expand(names[0]): StoredRows(tensor)}
    each = rows // (3 if len(names) == 3 else SINGLE_PARTS)
    starts = [each * index for index in range(len(names))]
    return {
        match.expand(name): StoredRows(tensor, ((start, rows if index + 1 == len(names) else start + each),))
        for index, (name, start) in enumerate(zip(names, starts, strict=True))
    }


SINGLE_PARTS = 7
"""Hidden widths of the rows of a single block's first tensor: query, key, value, and four of the feed-forward."""
DOUBLE, SINGLE = r"transformer_blocks.\1.", r"single_transformer_blocks.\1."
NAMES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"img_in\.(.*)", (r"x_embedder.\1",)),
    (r"txt_in\.(.*)", (r"context_embedder.\1",)),
    (r"time_in\.(.*)", (r"time_embed.\1",)),
    (r"vector_in\.(.*)", (r"vec_embed.\1",)),
    (r"final_layer\.linear\.(.*)", (r"proj_out.\1",)),
    (r"final_layer\.adaLN_modulation\.1\.(.*)", (r"norm_out.linear.\1",)),
    (r"double_blocks\.(\d+)\.img_mod\.lin\.(.*)", (DOUBLE + r"norm1.linear.\2",)),
    (r"double_blocks\.(\d+)\.txt_mod\.lin\.(.*)", (DOUBLE + r"norm1_context.linear.\2",)),
    (
        r"double_blocks\.(\d+)\.img_attn\.qkv\.(.*)",
        tuple(DOUBLE + rf"attn.{name}.\2" for name in ("to_q", "to_k", "to_v")),
    ),
    (
        r"double_blocks\.(\d+)\.txt_attn\.qkv\.(.*)",
        tuple(DOUBLE + rf"attn.{name}.\2" for name in ("add_q_proj", "add_k_proj", "add_v_proj")),
    ),
    (r"double_blocks\.(\d+)\.img_attn\.proj\.(.*)", (DOUBLE + r"attn.to_out.0.\2",)),
    (r"double_blocks\.(\d+)\.txt_attn\.proj\.(.*)", (DOUBLE + r"attn.to_add_out.\2",)),
    (r"double_blocks\.(\d+)\.img_attn\.norm\.query_norm\.scale", (DOUBLE + "attn.norm_q.weight",)),
    (r"double_blocks\.(\d+)\.img_attn\.norm\.key_norm\.scale", (DOUBLE + "attn.norm_k.weight",)),
    (r"double_blocks\.(\d+)\.txt_attn\.norm\.query_norm\.scale", (DOUBLE + "attn.norm_added_q.weight",)),
    (r"double_blocks\.(\d+)\.txt_attn\.norm\.key_norm\.scale", (DOUBLE + "attn.norm_added_k.weight",)),
    (r"double_blocks\.(\d+)\.img_mlp\.0\.(.*)", (DOUBLE + r"ff.net.0.proj.\2",)),
    (r"double_blocks\.(\d+)\.img_mlp\.2\.(.*)", (DOUBLE + r"ff.net.2.\2",)),
    (r"double_blocks\.(\d+)\.txt_mlp\.0\.(.*)", (DOUBLE + r"ff_context.net.0.proj.\2",)),
    (r"double_blocks\.(\d+)\.txt_mlp\.2\.(.*)", (DOUBLE + r"ff_context.net.2.\2",)),
    (r"single_blocks\.(\d+)\.modulation\.lin\.(.*)", (SINGLE + r"norm.linear.\2",)),
    (
        r"single_blocks\.(\d+)\.linear1\.(.*)",
        tuple(SINGLE + rf"{name}.\2" for name in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
    ),
    (r"single_blocks\.(\d+)\.linear2\.(.*)", (SINGLE + r"proj_out.\2",)),
    (r"single_blocks\.(\d+)\.norm\.query_norm\.scale", (SINGLE + "attn.norm_q.weight",)),
    (r"single_blocks\.(\d+)\.norm\.key_norm\.scale", (SINGLE + "attn.norm_k.weight",)),
)
"""Patterns of released names, and the names of the network's weights in that tensor, in the order of its rows."""

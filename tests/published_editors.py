"""The published editors as the real classes build them from their published configurations, on the meta device."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    Flux2Transformer2DModel,
    FluxTransformer2DModel,
    QwenImageTransformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel


class PublishedEditor(NamedTuple):
    """An editor's parts with weights. To mypy diffusers' models are no modules."""

    network: Any
    codec: Any
    text_encoders: list[Any]


def flux_network() -> FluxTransformer2DModel:
    """The network of FLUX.1 Kontext [dev]."""
    return FluxTransformer2DModel(
        in_channels=64,
        num_layers=19,
        num_single_layers=38,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )


def flux_codec() -> AutoencoderKL:
    """The codec of FLUX.1, 16 channels."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _kontext() -> PublishedEditor:
    t5 = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        feed_forward_proj="gated-gelu",
    )
    clip = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
        max_position_embeddings=77,
        vocab_size=49408,
    )
    return PublishedEditor(flux_network(), flux_codec(), [T5EncoderModel(t5), CLIPTextModel(clip)])


def _klein(double: int, single: int, heads: int, width: int, inner: int, *, tied: bool) -> PublishedEditor:
    network = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=double,
        num_single_layers=single,
        attention_head_dim=128,
        num_attention_heads=heads,
        joint_attention_dim=3 * width,
        mlp_ratio=3.0,
        axes_dims_rope=(32, 32, 32, 32),
        guidance_embeds=False,
    )
    text = Qwen3Config(
        vocab_size=151936,
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=tied,
    )
    return PublishedEditor(network, _flux2_codec(), [Qwen3ForCausalLM(text)])


def _flux2_codec() -> AutoencoderKLFlux2:
    return AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=32,
    )


def _flux2_dev() -> PublishedEditor:
    """Its text encoder is Mistral Small 3.1, 24 B; diffusers' and transformers' defaults are its sizes."""
    text = Mistral3ForConditionalGeneration(Mistral3Config(tie_word_embeddings=False))
    return PublishedEditor(Flux2Transformer2DModel(), _flux2_codec(), [text])


def _qwen_edit_plus(*, clean_source: bool) -> PublishedEditor:
    network = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=64,
        out_channels=16,
        num_layers=60,
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=3584,
        axes_dims_rope=(16, 56, 56),
        zero_cond_t=clean_source,
    )
    codec = AutoencoderKLQwenImage(
        base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True]
    )
    return PublishedEditor(network, codec, [qwen25_vl_7b()])


def qwen25_vl_7b() -> nn.Module:
    """Qwen2.5-VL-7B-Instruct."""
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
            "patch_size": 14,
        },
        tie_word_embeddings=False,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _omnigen2() -> PublishedEditor:
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 11008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "vocab_size": 151936,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
            "patch_size": 14,
        },
        tie_word_embeddings=True,
    )
    return PublishedEditor(OmniGen2Transformer2DModel(), flux_codec(), [Qwen2_5_VLForConditionalGeneration(config)])


def _step1x(mapping: bool) -> PublishedEditor:
    network = Step1XEditTransformer2DModel(enable_text_token_mapping=mapping)
    return PublishedEditor(network, flux_codec(), [qwen25_vl_7b()])


PUBLISHED: dict[str, Callable[[], PublishedEditor]] = {
    "flux-kontext": _kontext,
    "flux2-dev": _flux2_dev,
    "flux2-klein-4b": lambda: _klein(5, 20, 24, 2560, 9728, tied=True),
    "flux2-klein-9b": lambda: _klein(8, 24, 32, 4096, 12288, tied=False),
    "omnigen2": _omnigen2,
    "qwen-image-edit-2511": lambda: _qwen_edit_plus(clean_source=True),
    "qwen-image-edit-plus": lambda: _qwen_edit_plus(clean_source=False),
    "step1x-edit-v1p0": lambda: _step1x(False),
    "step1x-edit-v1p1": lambda: _step1x(False),
    "step1x-edit-v1p2": lambda: _step1x(True),
}
"""By the name of the editor's architecture."""


def build_published(name: str) -> PublishedEditor:
    """Build an editor on the meta device, where its weights take no memory."""
    with torch.device("meta"):
        return PUBLISHED[name]()

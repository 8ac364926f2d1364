"""Tiny pipelines of the real diffusers classes, real codecs among them, written as `from_pretrained` reads them."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from editloop.models.editors.flux2_klein import Flux2KleinEditor
from editloop.models.editors.kontext import KontextEditor
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.qwen_edit_plus import QwenEditPlusEditor
from editloop.models.editors.qwen_processor import PictureProcessor
from editloop.models.editors.settings import read_editor_preset
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.studies.tiny_models.editor import TEXT_TOKENS, tokenizer
from editloop.studies.world.scenes import WORDS

KINDS = ("kontext", "kontext-undistilled", "qwen-edit-plus", "klein-base", "klein-distilled")
AREA = 2048
"""Pixels: sources of 32x64 and 64x32, and of 48x48 where whole patches allow."""
TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWENS_ORDER = (
    "<|im_start|>system\nDescribe the key features of the input image (color, shape, size, texture, objects, "
    "background), then explain how the user's text instruction should alter or modify the image. Generate a new image "
    "that meets the user's requirements while maintaining consistency with the original input where appropriate."
    "<|im_end|>\n<|im_start|>user\nPicture 1: <|im_end|>\n<|im_start|>assistant\n"
)
"""What the pipeline says to its text encoder: its words are tokens of the tiny tokenizer, so that rows are short."""
BLOCKS = {"block_out_channels": (8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
"""Of a codec that makes pictures four times smaller, as the tiny editor's does."""


def write_tiny_editor(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write an untrained editor of one of KINDS; returns the folder."""
    build_tiny_editor(kind, seed).save(folder)
    return folder


def build_tiny_editor(kind: str, seed: int = 0) -> PipelineEditor:
    """An untrained editor of one of KINDS."""
    torch.manual_seed(seed)
    if kind.startswith("kontext"):
        return _kontext(distilled=kind == "kontext")
    return _qwen() if kind == "qwen-edit-plus" else _klein(distilled=kind == "klein-distilled")


def tiny_codec() -> AutoencoderKL:
    """A codec of FLUX.1's class that makes pictures four times smaller."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        scaling_factor=0.36,
        shift_factor=0.11,
        **BLOCKS,
    )


def _kontext(distilled: bool) -> KontextEditor:
    words = tokenizer()
    text = T5Config(vocab_size=len(words), d_model=32, d_kv=16, d_ff=64, num_layers=1, num_heads=2, dropout_rate=0.0)
    pooled = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=32,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    codec = tiny_codec()
    network = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        guidance_embeds=distilled,
        axes_dims_rope=(4, 6, 6),
    )
    pipeline = FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=codec,
        text_encoder=CLIPTextModel(pooled),
        tokenizer=words,
        text_encoder_2=T5EncoderModel(text),
        tokenizer_2=words,
        transformer=network,
    )
    return KontextEditor(quiet(pipeline), _small("flux-kontext", sizes=(), text_tokens=TEXT_TOKENS))


def _qwen() -> QwenEditPlusEditor:
    bytes_ = byte_tokenizer([QWENS_ORDER, *WORDS, *(f" {word}" for word in WORDS)])
    pictures = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 4096})
    codec = AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )
    network = QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=64,
        axes_dims_rope=(4, 6, 6),
    )
    shifting = {"use_dynamic_shifting": True, "shift_terminal": 0.02, "base_shift": 0.5, "max_shift": 0.9}
    pipeline = QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(**shifting, max_image_seq_len=8192),
        vae=codec,
        text_encoder=Qwen2_5_VLForConditionalGeneration(tiny_config("qwen2.5-vl", bytes_)).eval(),
        tokenizer=bytes_,
        processor=PictureProcessor(pictures, bytes_),
        transformer=network,
    )
    return QwenEditPlusEditor(quiet(pipeline), _small("qwen-image-edit-plus", seen_area=AREA))


def _klein(distilled: bool) -> Flux2KleinEditor:
    bytes_ = chatting(byte_tokenizer([*WORDS, *(f" {word}" for word in WORDS)]))
    text = Qwen3Config(
        vocab_size=len(bytes_),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    )
    codec = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        **BLOCKS,
    )
    codec.bn.running_mean.normal_()
    codec.bn.running_var.uniform_(0.5, 2)
    network = Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=codec,
        text_encoder=Qwen3ForCausalLM(text).eval(),
        tokenizer=bytes_,
        transformer=network,
        is_distilled=distilled,
    )
    preset = "flux2-klein" if distilled else "flux2-klein-base"
    return Flux2KleinEditor(quiet(pipeline), _small(preset, text_tokens=32, text_layers=(1, 2, 3)))


def _small(preset: str, **told: Any) -> Any:
    return read_editor_preset(preset).model_copy(update={"area": AREA, "steps": 4, **told})


def chatting(words: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with the chat template that FLUX.2's pipeline asks for."""
    words.chat_template = TEMPLATE
    return words


def quiet(pipeline: Any) -> Any:
    """The pipeline without progress bars, for use rather than training."""
    pipeline.set_progress_bar_config(disable=True)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    return pipeline

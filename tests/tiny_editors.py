"""Tiny pipelines of the real classes, real codecs among them, written as released folders are."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
)
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from tokenizers import AddedToken
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from editloop.models.editors.flux2_dev import Flux2DevEditor, TextProcessor
from editloop.models.editors.flux2_klein import Flux2KleinEditor
from editloop.models.editors.kontext import KontextEditor
from editloop.models.editors.omnigen2 import OmniGen2Editor, OmniGen2Pipeline
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.qwen_edit_plus import QwenEditPlusEditor
from editloop.models.editors.qwen_processor import PictureProcessor
from editloop.models.editors.settings import read_editor_preset
from editloop.models.editors.step1x import Step1XEditor, Step1XEditorV1P2
from editloop.models.editors.step1x_files import flux_scheduler
from editloop.models.editors.step1x_network import Step1XEditTransformer2DModel
from editloop.studies.tiny_models.backbone import byte_tokenizer, tiny_config
from editloop.studies.tiny_models.editor import TEXT_TOKENS, tokenizer
from editloop.studies.world.scenes import WORDS

OWN_KINDS = ("omnigen2", "step1x-v1p0", "step1x-v1p1", "step1x-v1p2")
"""Editors whose pipeline diffusers does not have: its call cannot be compared with."""
FLUX2_KINDS = ("flux2-dev", "klein-base", "klein-distilled")
KINDS = ("kontext", "kontext-undistilled", "qwen-edit-plus", "qwen-edit-2511", *FLUX2_KINDS, *OWN_KINDS)
AREA = 2048
"""Pixels: sources of 32x64 and 64x32, and of 48x48 where whole patches allow."""
SEEING_TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{% if one.content is string %}{{ one.content }}{% else %}"
    "{% for part in one.content %}{% if part.type == 'image' %}Picture 1: <|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen2.5-VL's, for messages of parts too."""
PREAMBLE = "describe the edit"
"""What the tiny editors say to their text encoder before the instruction."""
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
PARTS_TEMPLATE = (
    "{% for one in messages %}{{ '[INST]' if one.role == 'user' else '' }}{% for part in one.content %}{{ part.text }}"
    "{% endfor %}{% endfor %}"
)
"""In place of Mistral's."""
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
    if kind == "omnigen2":
        return _omnigen2()
    if kind.startswith("step1x"):
        return _step1x(kind.removeprefix("step1x-"))
    if kind.startswith("qwen"):
        return _qwen(clean_source=kind == "qwen-edit-2511")
    return _dev() if kind == "flux2-dev" else _klein(distilled=kind == "klein-distilled")


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


def faint_codec() -> AutoencoderKL:
    """A codec whose pictures are about grey, so that the oracle tells them apart: the reward is above 0."""
    codec = tiny_codec()
    torch.nn.init.zeros_(codec.decoder.conv_out.bias)
    codec.decoder.conv_out.weight.data.mul_(0.3)
    return codec


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
        vae=faint_codec(),
        text_encoder=CLIPTextModel(pooled),
        tokenizer=words,
        text_encoder_2=T5EncoderModel(text),
        tokenizer_2=words,
        transformer=network,
    )
    return KontextEditor(quiet(pipeline), _small("flux-kontext", sizes=(), text_tokens=TEXT_TOKENS))


def _qwen(clean_source: bool) -> QwenEditPlusEditor:
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
        zero_cond_t=clean_source,
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
    pipeline = Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=_flux2_codec(),
        text_encoder=Qwen3ForCausalLM(text).eval(),
        tokenizer=bytes_,
        transformer=_flux2_network(guided=False),
        is_distilled=distilled,
    )
    preset = "flux2-klein" if distilled else "flux2-klein-base"
    return Flux2KleinEditor(quiet(pipeline), _small(preset, text_tokens=32, text_layers=(1, 2, 3)))


def _dev() -> Flux2DevEditor:
    bytes_ = byte_tokenizer([SYSTEM_MESSAGE, *WORDS, *(f" {word}" for word in WORDS)])
    bytes_.add_tokens([AddedToken("[INST]", special=True)])
    bytes_.chat_template = PARTS_TEMPLATE
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "head_dim": 16}
    text = {**shape, "model_type": "mistral", "vocab_size": len(bytes_), "num_hidden_layers": 3}
    vision = {**shape, "model_type": "pixtral", "num_hidden_layers": 1, "image_size": 16, "patch_size": 4}
    encoder = Mistral3Config(text_config=text | {"num_key_value_heads": 2}, vision_config=vision)
    pipeline = Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        vae=_flux2_codec(),
        text_encoder=Mistral3ForConditionalGeneration(encoder).eval(),
        tokenizer=TextProcessor(bytes_),
        transformer=_flux2_network(guided=True),
    )
    return Flux2DevEditor(quiet(pipeline), _small("flux2-dev", text_tokens=80, text_layers=(1, 2, 3)))


def _flux2_codec() -> AutoencoderKLFlux2:
    codec = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        **BLOCKS,
    )
    codec.bn.running_mean.normal_()
    codec.bn.running_var.uniform_(0.5, 2)
    return codec


def _flux2_network(guided: bool) -> Flux2Transformer2DModel:
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guided,
    )


def seeing_processor() -> PictureProcessor:
    """A processor of Qwen2.5-VL's kind whose words are single tokens, with a chat template."""
    words = byte_tokenizer([PREAMBLE, "user", "assistant", "Picture 1:", *WORDS, *(f" {word}" for word in WORDS)])
    words.chat_template = SEEING_TEMPLATE
    pictures = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 4096})
    return PictureProcessor(pictures, words)


def seeing_encoder(processor: PictureProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """A text encoder of Qwen2.5-VL's class."""
    return Qwen2_5_VLForConditionalGeneration(tiny_config("qwen2.5-vl", processor.tokenizer)).eval()


def _omnigen2() -> OmniGen2Editor:
    processor = seeing_processor()
    network = OmniGen2Transformer2DModel(
        in_channels=4,
        hidden_size=48,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 4, 4),
        text_feat_dim=64,
    )
    pipeline = OmniGen2Pipeline(
        transformer=network,
        vae=faint_codec(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        mllm=seeing_encoder(processor),
        processor=processor,
    )
    return OmniGen2Editor(quiet(pipeline), _small("omnigen2", longest_side=64, text_tokens=64, preamble=PREAMBLE))


def _step1x(release: str) -> Step1XEditor:
    processor = seeing_processor()
    editor_class = Step1XEditorV1P2 if release == "v1p2" else Step1XEditor
    network = Step1XEditTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        connector_in_channels=64,
        connector_hidden_size=32,
        connector_heads_num=2,
        connector_depth=1,
        axes_dims_rope=(4, 6, 6),
        enable_text_token_mapping=release == "v1p2",
    )
    pipeline = editor_class.pipeline_class()(
        scheduler=flux_scheduler(),
        vae=faint_codec(),
        text_encoder=seeing_encoder(processor),
        processor=processor,
        transformer=network,
    )
    told = {"preamble": PREAMBLE, "preamble_tokens": 6, "text_tokens": 96, "seen_pixels": (64, 1024)}
    return editor_class(quiet(pipeline), _small(f"step1x-edit-{release}", **told))


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

"""Editors at their real sizes with random weights in bfloat16, made on the device: pipelines without a folder."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from editloop.models.editors.flux2_klein import Flux2KleinEditor
from editloop.models.editors.kontext import KontextEditor
from editloop.models.editors.omnigen2 import OmniGen2Editor, OmniGen2Pipeline
from editloop.models.editors.omnigen2_network import OmniGen2Transformer2DModel
from editloop.models.editors.pipeline_editor import PipelineEditor
from editloop.models.editors.qwen_edit_plus import QwenEditPlusEditor
from editloop.models.editors.qwen_processor import PictureProcessor
from editloop.models.editors.settings import read_editor_preset
from editloop.studies.tiny_models.backbone import byte_tokenizer
from editloop.studies.tiny_models.editor import tokenizer
from editloop.studies.world.scenes import WORDS
from editloop.training.presets import load_preset
from tests.gpu.vision_language import LARGE, qwen_config
from tests.tiny_editors import QWENS_ORDER, chatting, quiet

BUILDERS = ("qwen-image-edit-plus", "flux-kontext", "omnigen2", "flux2-klein")
"""Presets that `real_editor` builds, the largest first: networks of 20, 12, 4 and 4 billion weights."""
PREAMBLE = "You edit images."
"""OmniGen2's system message is in its release's code alone. Words do not change how long a pass takes."""


def real_editor(preset: str, device: torch.device, side: int) -> PipelineEditor:
    """An untrained editor of one of BUILDERS at its published size, for pictures of so many pixels a side."""
    build = {
        "qwen-image-edit-plus": _qwen,
        "flux-kontext": _kontext,
        "omnigen2": _omnigen2,
        "flux2-klein": _klein,
    }[preset]
    settings = read_editor_preset(preset).model_copy(
        update={"area": side * side, "sizes": ((side, side),), "preamble": PREAMBLE}
    )
    torch.manual_seed(0)
    kind, pipeline = build(device)
    return kind(quiet(pipeline), settings)


@contextmanager
def made_in_bf16(device: torch.device) -> Iterator[None]:
    """Within the block modules come into being on the device, in bfloat16."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def _flux_codec() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=16,
        sample_size=1024,
        scaling_factor=0.3611,
        shift_factor=0.1159,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _omnigen2(device: torch.device) -> tuple[type[OmniGen2Editor], OmniGen2Pipeline]:
    bytes_ = chatting(byte_tokenizer([*WORDS, *(f" {word}" for word in WORDS), PREAMBLE]))
    with made_in_bf16(device):
        parts = {
            "transformer": OmniGen2Transformer2DModel(),
            "mllm": Qwen2_5_VLForConditionalGeneration(qwen_config(LARGE, bytes_)),
            "vae": _flux_codec(),
        }
    processor = PictureProcessor(Qwen2VLImageProcessorPil(patch_size=14, merge_size=2), bytes_)
    pipeline = OmniGen2Pipeline(scheduler=FlowMatchEulerDiscreteScheduler(), processor=processor, **parts)
    return OmniGen2Editor, pipeline


def _kontext(device: torch.device) -> tuple[type[KontextEditor], FluxKontextPipeline]:
    words = tokenizer()
    text = T5Config(
        vocab_size=32128,
        d_model=4096,
        d_kv=64,
        d_ff=10240,
        num_layers=24,
        num_heads=64,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
    )
    pooled = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    with made_in_bf16(device):
        parts = {
            "transformer": FluxTransformer2DModel(guidance_embeds=True),
            "text_encoder": CLIPTextModel(pooled),
            "text_encoder_2": T5EncoderModel(text),
            "vae": _flux_codec(),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return KontextEditor, FluxKontextPipeline(scheduler=scheduler, tokenizer=words, tokenizer_2=words, **parts)


def _qwen(device: torch.device) -> tuple[type[QwenEditPlusEditor], QwenImageEditPlusPipeline]:
    bytes_ = byte_tokenizer([QWENS_ORDER, *WORDS, *(f" {word}" for word in WORDS)])
    pictures = Qwen2VLImageProcessorPil(patch_size=14, merge_size=2)
    config = qwen_config(load_preset("editreward-qwen2.5-vl-7b").architecture, bytes_)
    with made_in_bf16(device):
        parts = {
            "transformer": QwenImageTransformer2DModel(),
            "text_encoder": Qwen2_5_VLForConditionalGeneration(config),
            "vae": AutoencoderKLQwenImage(),
        }
    shifting = {"use_dynamic_shifting": True, "shift_terminal": 0.02, "base_shift": 0.5, "max_shift": 0.9}
    scheduler = FlowMatchEulerDiscreteScheduler(**shifting, max_image_seq_len=8192)
    processor = PictureProcessor(pictures, bytes_)
    pipeline = QwenImageEditPlusPipeline(scheduler=scheduler, tokenizer=bytes_, processor=processor, **parts)
    return QwenEditPlusEditor, pipeline


def _klein(device: torch.device) -> tuple[type[Flux2KleinEditor], Flux2KleinPipeline]:
    bytes_ = chatting(byte_tokenizer([*WORDS, *(f" {word}" for word in WORDS)]))
    text = Qwen3Config(
        vocab_size=151936,
        hidden_size=2560,
        intermediate_size=9728,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
    )
    with made_in_bf16(device):
        parts = {
            "transformer": Flux2Transformer2DModel(
                num_layers=5,
                num_single_layers=20,
                num_attention_heads=24,
                joint_attention_dim=7680,
                guidance_embeds=False,
            ),
            "text_encoder": Qwen3ForCausalLM(text),
            "vae": AutoencoderKLFlux2(),
        }
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0)
    return Flux2KleinEditor, Flux2KleinPipeline(scheduler=scheduler, tokenizer=bytes_, is_distilled=True, **parts)

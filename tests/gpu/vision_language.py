"""Qwen2.5-VL and Qwen3-VL models with random weights, made where they are used: no download, no copy."""

from typing import Any, NamedTuple

import torch
from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen3VLConfig

from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.edit_score.model import EditScoreModel
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.lora_settings import LoraSettings
from editloop.studies.tiny_models.backbone import SPECIAL, byte_tokenizer
from editloop.training.architecture import Architecture, Language, Vision
from editloop.training.presets import Load, Preset, load_preset
from editloop.training.settings import TrainingSettings
from tests.measured_training import INSTRUCTION

TINY = Architecture(
    language=Language(
        layers=2,
        width=64,
        inner=192,
        heads=2,
        key_value_heads=1,
        head_width=32,
        vocabulary=600,
        tied=False,
        attention_bias=True,
    ),
    vision=Vision(layers=2, width=64, inner=128, gated=True, patch=4),
)
TINY_QWEN3 = Architecture(
    language=TINY.language.model_copy(update={"attention_bias": False}),
    vision=Vision(layers=2, width=64, inner=128, gated=False, patch=4, deepstack=1, positions=64),
)
MIDDLE = Architecture(
    language=Language(
        layers=8,
        width=1024,
        inner=2816,
        heads=8,
        key_value_heads=2,
        head_width=128,
        vocabulary=8192,
        tied=False,
        attention_bias=True,
    ),
    vision=Vision(layers=4, width=640, inner=1728, gated=True, patch=14),
)
"""About 130 million weights: what is compared in fp32 too, and what is saved and read again."""
LARGE = Architecture(
    language=Language(
        layers=36,
        width=2048,
        inner=11008,
        heads=16,
        key_value_heads=2,
        head_width=128,
        vocabulary=151936,
        tied=False,
        attention_bias=True,
    ),
    vision=Vision(layers=32, width=1280, inner=3420, gated=True, patch=14),
)
"""Qwen2.5-VL-3B: all weights and their optimiser take 60 GB, which a machine with one GPU has in main memory."""
REWARD, REWARD_QWEN3 = "editreward-qwen2.5-vl-7b", "editreward-qwen3-vl-8b"
ADAPTER = LoraSettings(rank=32, alpha=64)
"""Where a GPU alone cannot train all weights, the language model's linear layers get EditScore's adapter."""


class Scale(NamedTuple):
    """How large a row's model and pictures are."""

    architecture: Architecture
    load: Load


def scale(tiny: bool, *, middle: bool = False, preset: str = REWARD) -> Scale:
    """Of one of EditReward's published presets; of a model between; or tiny, of the preset's family."""
    published = load_preset(preset)
    if tiny:
        shape = TINY if published.architecture.vision.gated else TINY_QWEN3
        return Scale(shape, Load(candidates=2, pixels=32 * 32, text_tokens=40))
    return Scale(MIDDLE if middle else published.architecture, published.load)


def reward_preset(size: Scale, **training: Any) -> Preset:
    """EditReward's published preset, which is one for both families, at another scale and with other settings."""
    published = load_preset(REWARD)
    published_training = published.training.model_dump() | {
        "epochs": None,
        "evaluate_every": None,
        "checkpoint_every": None,
    }
    return published.model_copy(
        update={
            "architecture": size.architecture,
            "load": size.load,
            "training": TrainingSettings.model_validate(published_training | training),
        }
    )


def qwen_config(shape: Architecture, tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig | Qwen3VLConfig:
    """The config of the real class for an architecture; token ids are the tokenizer's."""
    text, tower = shape.language, shape.vision
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    axes = text.head_width // 8
    rope: dict[str, Any] = {"rope_type": "default", "mrope_section": [axes, 3 * axes // 2, 3 * axes // 2]}
    language: dict[str, Any] = {
        "vocab_size": text.vocabulary,
        "hidden_size": text.width,
        "intermediate_size": text.inner,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "num_key_value_heads": text.key_value_heads,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": rope | {"rope_theta": 1e6},
        "tie_word_embeddings": text.tied,
        "pad_token_id": ids["<|endoftext|>"],
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
    }
    vision: dict[str, Any] = {
        "depth": tower.layers,
        "hidden_size": tower.width,
        "intermediate_size": tower.inner,
        "num_heads": next(tower.width // width for width in (80, 72, 32) if tower.width % width == 0),
        "out_hidden_size": text.width,
        "patch_size": tower.patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    }
    names: dict[str, Any] = {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "tie_word_embeddings": text.tied,
    }
    if tower.gated:
        quarter = max(1, tower.layers // 4)
        whole = list(range(quarter - 1, tower.layers, quarter))
        vision |= {"window_size": 8 * tower.patch, "fullatt_block_indexes": whole}
        return Qwen2_5_VLConfig(text_config=language, vision_config=vision, **names)
    language |= {"head_dim": text.head_width, "rope_parameters": rope | {"rope_theta": 5e6, "mrope_interleaved": True}}
    apart = (tower.layers - tower.deepstack) // tower.deepstack  # 8, 16 and 24 of 27 as published
    deepstack = [apart * number for number in range(1, tower.deepstack + 1)]
    vision |= {"num_position_embeddings": tower.positions, "deepstack_visual_indexes": deepstack}
    return Qwen3VLConfig(text_config=language, vision_config=vision, **names)


def random_reward(size: Scale, device: torch.device, dtype: torch.dtype, seed: int = 0) -> RewardModel:
    """EditReward in the published order, its rubrics and pictures as long and large as the scale's load says."""
    from transformers import AutoModel

    torch.manual_seed(seed)
    tokenizer = byte_tokenizer()
    with torch.device(device):
        backbone = AutoModel.from_config(qwen_config(size.architecture, tokenizer), dtype=dtype)
    rubric = "{instruction} " + "x" * (size.load.text_tokens - len(INSTRUCTION) - 2)
    settings = RewardSettings(
        order="official",
        rubrics=(rubric, rubric),
        opening="",
        min_pixels=size.load.pixels,
        max_pixels=size.load.pixels,
    )
    return RewardModel(backbone, tokenizer, settings).to(device)


def random_score(
    shape: Architecture, pixels: int, device: torch.device, dtype: torch.dtype, seed: int = 0
) -> EditScoreModel:
    """EditScore with the published questions, a word a token as in a real vocabulary."""
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    settings = EditScoreSettings(min_pixels=pixels, max_pixels=pixels)
    words = [settings.system, *(question.text for question in settings.questions), "user assistant"]
    tokenizer = byte_tokenizer(words)
    config = qwen_config(shape, tokenizer)
    with torch.device(device):
        backbone = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
    return EditScoreModel(backbone, tokenizer, settings).to(device).eval()

"""Add low-rank adapters to a model."""

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from editloop.models.lora_settings import LoraSettings

TARGET_MODULES = r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"
"""All linear layers of the language model (Qwen2.5-VL, Qwen3-VL). The vision tower gets no adapter."""


def add_adapter(backbone: nn.Module, settings: LoraSettings) -> None:
    """Add a LoRA adapter to every linear layer of the language model, in place, and freeze all other weights.

    Args:
        backbone: A Qwen2.5-VL or Qwen3-VL model.
        settings: Rank, alpha and dropout of the adapter.
    """
    backbone.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=TARGET_MODULES
    )
    inject_adapter_in_model(config, backbone)

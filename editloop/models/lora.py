"""Add low-rank adapters to a model and merge them into its weights, so that a saved model loads without peft."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
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


def merge_adapter(backbone: nn.Module) -> None:
    """Merge every adapter into its layer, in place. The model then has plain layers only.

    Args:
        backbone: A model with LoRA adapters.
    """
    for name, layer in [(name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())

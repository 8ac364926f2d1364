"""Low-rank adapters put into a model and merged out of it again, so that what is saved needs no peft to load."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn

from editloop.models.lora_settings import LoraSettings

TARGET_MODULES = r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"
"""All linear layers of the language model (Qwen2.5-VL, Qwen3-VL); the vision tower stays as it is."""


def add_adapter(backbone: nn.Module, settings: LoraSettings) -> None:
    """Put an adapter beside every linear layer of the language model, in place; all else of `backbone` is frozen."""
    backbone.requires_grad_(False)
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=TARGET_MODULES
    )
    inject_adapter_in_model(config, backbone)


def merge_adapter(backbone: nn.Module) -> None:
    """Add every adapter to the layer it stands beside, and leave the plain layers, in place."""
    for name, layer in [(name, module) for name, module in backbone.named_modules() if isinstance(module, LoraLayer)]:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(backbone.get_submodule(parent), child, layer.get_base_layer())

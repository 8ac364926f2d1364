"""Low-rank adapters (arXiv 2106.09685) in PEFT's format, in which EditScore's weights are released.

A folder holds `adapter_config.json` and `adapter_model.safetensors`. Reading needs no PEFT. After a check that every
tensor fits, the adapter is added to the weights of its base, W + scale * B A; the model then has plain layers only.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from editloop.errors import EditLoopError
from editloop.models.backbones.spreading import gathered, is_spread, whole_shape
from editloop.models.backbones.weight_files import read_tensors, survey_weights
from editloop.models.lora_settings import LoraSettings
from editloop.settings_file import shorten
from editloop.text_file import file_bytes

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KEY = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
"""Key of a tensor in the weights: the module's name, and which of the two factors it is."""
LEGACY_PREFIXES = (
    (re.compile(r"model\.layers\."), "model.language_model.layers."),
    (re.compile(r"visual\."), "model.visual."),
)
"""Prefixes of module names in the classes that older adapters were trained with, and the present ones."""
UNDERSTOOD_SETTINGS = frozenset(
    {
        *("peft_type", "base_model_name_or_path", "r", "lora_alpha", "use_rslora", "target_modules"),  # read here
        *("task_type", "auto_mapping", "peft_version", "revision", "inference_mode", "lora_dropout"),  # notes
        *("exclude_modules", "layers_pattern"),  # which modules are adapted, which the weights themselves say
        *("megatron_core", "qalora_group_size"),  # details of what another setting switches on
    }
)
"""PEFT settings that may have any value in an adapter that is read."""
UNUSED_VALUES: tuple[object, ...] = (None, False, {})
"""Values of any other PEFT setting that does not change what the weights mean."""
PLAIN_VALUES: dict[str, tuple[object, ...]] = {
    "bias": ("none",),
    "init_lora_weights": (True, "gaussian"),
    "layers_to_transform": ([],),
    "modules_to_save": ([],),
}
"""Further values of a PEFT setting under which an adapter is a plain LoRA."""


class Adapter(NamedTuple):
    """An adapter as read from a folder."""

    folder: Path
    base: str
    """The base by its config: a name on the Hugging Face hub or a path. Empty where the config names none."""
    scale: float
    """Factor on the product of the factors."""
    factors: dict[str, tuple[Tensor, Tensor]]
    """(A, B), (rank, inputs) and (outputs, rank), by the module's name in the base."""


def write_adapter(folder: Path, state: dict[str, Tensor], settings: LoraSettings, base: str) -> None:
    """Write an adapter in PEFT's format.

    Args:
        folder: The folder to write.
        state: The adapter's parameters by their names in the backbone.
        settings: Rank, alpha and dropout of the adapter.
        base: The base's name for the config.
    """
    from editloop.models.lora import TARGET_MODULES

    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": TARGET_MODULES,
        "bias": "none",
        "inference_mode": True,
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    named = {f"base_model.model.{name.replace('.default.', '.')}": value.contiguous() for name, value in state.items()}
    save_file(named, folder / WEIGHTS)


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder.

    Args:
        folder: The folder that PEFT or `write_adapter` wrote.

    Raises:
        EditLoopError: The adapter is not a plain LoRA, is incomplete or inconsistent, or has only pickled weights.
    """
    if not (folder / CONFIG).is_file():
        raise EditLoopError(f"adapter {folder}: no {CONFIG}; give the folder that PEFT wrote.")
    if not (folder / WEIGHTS).is_file():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        contents = f"only {', '.join(pickles)}, which can run code when read" if pickles else "no weights"
        raise EditLoopError(f"adapter {folder}: {contents}; it must have {WEIGHTS}. Convert it where you trust it.")
    config = _config(folder)
    halves: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for key, value in read_tensors(survey_weights(folder / WEIGHTS)):
        match = KEY.fullmatch(key)
        if match is None:
            raise EditLoopError(f"adapter {folder}: key {key!r} is no LoRA weight; only plain LoRA adapters are read.")
        halves[_module(match[1])][match[2]] = value
    unpaired = sorted(name for name, pair in halves.items() if pair.keys() != {"A", "B"})
    if unpaired or not halves:
        raise EditLoopError(
            f"adapter {folder}: {unpaired or 'no weights'} without both lora_A and lora_B. Fetch it anew."
        )
    factors = {name: (pair["A"], pair["B"]) for name, pair in halves.items()}
    rank = config["r"]
    for name, (down, up) in factors.items():
        if down.ndim != 2 or up.ndim != 2 or down.shape[0] != rank or up.shape[1] != rank:
            raise EditLoopError(
                f"adapter {folder}: {name} has A {tuple(down.shape)}, B {tuple(up.shape)}; {CONFIG} says rank {rank}."
            )
    targets = config["target_modules"] if isinstance(config.get("target_modules"), list) else []
    missing_targets = [target for target in targets if not any(f".{name}".endswith(f".{target}") for name in factors)]
    if missing_targets:
        raise EditLoopError(
            f"adapter {folder}: {CONFIG} names targets {missing_targets}, but {WEIGHTS} has none of these."
        )
    scale = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    return Adapter(folder, str(config.get("base_model_name_or_path") or ""), scale, factors)


def check_fits(backbone: Any, adapter: Adapter) -> None:
    """Check that an adapter belongs to a backbone.

    Args:
        backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration. Its weights are not read.
        adapter: The adapter.

    Raises:
        EditLoopError: A module is missing or has another shape, or the language model's layers are not all adapted
            alike.
    """
    modules = dict(backbone.named_modules())
    for name, (down, up) in adapter.factors.items():
        module = modules.get(name)
        if not isinstance(module, nn.Linear):
            raise EditLoopError(_other_base(adapter, f"the base has no linear layer {name}"))
        base_shape, adapter_shape = whole_shape(module.weight), (up.shape[0], down.shape[1])
        if base_shape != adapter_shape:
            raise EditLoopError(
                _other_base(adapter, f"{name} is for a layer of {adapter_shape}, the base's is {base_shape}")
            )
    by_layer: dict[int, set[str]] = {layer: set() for layer in range(len(backbone.model.language_model.layers))}
    for name in adapter.factors:
        if match := re.fullmatch(r"model\.language_model\.layers\.(\d+)\.(.+)", name):
            by_layer[int(match[1])].add(match[2])
    adapted_anywhere = set().union(*by_layer.values())
    for layer, adapted in by_layer.items():
        if adapted != adapted_anywhere:
            missing = ", ".join(sorted(adapted_anywhere - adapted))
            raise EditLoopError(_other_base(adapter, f"layer {layer} of the base gets nothing for {missing}"))


@torch.no_grad()
def apply_adapter(backbone: Any, adapter: Adapter) -> None:
    """Add an adapter to the backbone's weights, in place. Where it does not fit, nothing changes.

    Args:
        backbone: Qwen2_5_VLForConditionalGeneration or Qwen3VLForConditionalGeneration.
        adapter: The adapter.

    Raises:
        EditLoopError: The adapter belongs to another base; see `check_fits`.
    """
    check_fits(backbone, adapter)
    modules = dict(backbone.named_modules())
    for name, (down, up) in adapter.factors.items():
        weight = modules[name].weight
        down, up = (factor.to(weight.device, torch.float32) for factor in (down, up))
        with gathered(weight, changed=is_spread(weight)):
            weight.copy_(weight.float() + adapter.scale * (up @ down))


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads(file_bytes(folder / CONFIG))
        rank, alpha = config["r"], config["lora_alpha"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EditLoopError(f"adapter {folder}/{CONFIG}: not PEFT's settings of a LoRA ({error!r}).") from error
    if config.get("peft_type") != "LORA" or not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise EditLoopError(
            f"adapter {folder}/{CONFIG}: peft_type {config.get('peft_type')!r}, r {rank!r}, lora_alpha {alpha!r}; only "
            "plain LoRA adapters are read. Merge it with PEFT and give the whole weights."
        )
    for key, value in config.items():
        if key not in UNDERSTOOD_SETTINGS and value not in (*UNUSED_VALUES, *PLAIN_VALUES.get(key, ())):
            raise EditLoopError(
                f"adapter {folder}/{CONFIG}: {key} = {shorten(value)} is not understood, so the adapter may mean "
                "something else than its weights say. Merge it with PEFT and give the whole weights."
            )
    return dict(config)


def _module(name: str) -> str:
    for older, newer in LEGACY_PREFIXES:
        if older.match(name):
            return older.sub(newer, name, count=1)
    return name


def _other_base(adapter: Adapter, reason: str) -> str:
    origin = f", which was trained on {adapter.base!r}" if adapter.base else ""
    return f"adapter {adapter.folder}{origin}: {reason}. It belongs to another base; give that one."

"""A vision tower's attention: one call for each window or picture, as sdpa does it, against a few batches.

Towers of the real classes at a middle size (heads of the real width, patches of the real size), pictures of 512 pixels.
On a CPU the linear layers take most of the time of both ways. On a GPU each call starts a kernel of its own, and the
count of calls is what decides.
"""

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Qwen2_5_VLModel, Qwen3VLModel

from editloop.models.backbones.vision_attention import enable_segment_attention
from editloop.studies.tiny_models.backbone import Family, byte_tokenizer, tiny_config
from tests.performance.bench import Benchmark

SIDE, PICTURES, LAYERS = 512, 2, 2
PATCH: dict[Family, int] = {"qwen2.5-vl": 14, "qwen3-vl": 16}
NOT_SLOWER = 0.9
"""On a CPU the two ways are level."""
HEAD: dict[Family, int] = {"qwen2.5-vl": 80, "qwen3-vl": 72}
CLASSES = {"qwen2.5-vl": Qwen2_5_VLModel, "qwen3-vl": Qwen3VLModel}


class Towers(NamedTuple):
    """One tower, read both ways, and pictures for it."""

    plain: nn.Module
    ours: nn.Module
    pixels: Tensor
    grids: Tensor


@lru_cache(1)
def towers(family: Family) -> Towers:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    patch_side = PATCH[family]
    config = tiny_config(family, byte_tokenizer(), patch=patch_side, vision_layers=LAYERS)
    vision = config.vision_config
    vision.num_heads, vision.hidden_size, vision.intermediate_size = 4, 4 * HEAD[family], 12 * HEAD[family]
    if family == "qwen2.5-vl":
        vision.fullatt_block_indexes = [LAYERS - 1]
    ours = CLASSES[family](config).eval()
    plain = copy.deepcopy(ours)
    enable_segment_attention(ours)
    rows = SIDE // patch_side // 2 * 2
    pixels = torch.randn(PICTURES * rows * rows, 3 * 2 * patch_side**2)
    return Towers(plain.visual, ours.visual, pixels, torch.tensor([[1, rows, rows]] * PICTURES))


def passes(tower: nn.Module, pixels: Tensor, grids: Tensor) -> Callable[[], Tensor]:
    """Forward and backward."""

    def run() -> Tensor:
        tower.zero_grad()
        features: Tensor = tower(pixels, grids).pooler_output
        features.square().mean().backward()
        return features.detach()

    return run


def near(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= 2e-5)


def speed(family: Family, target: float) -> Callable[[], Benchmark]:
    def make() -> Benchmark:
        both = towers(family)
        plain, ours = (passes(tower, both.pixels, both.grids) for tower in (both.plain, both.ours))
        name = f"vision: forward and backward of {PICTURES} pictures of {SIDE} px, {family}"
        return Benchmark(name, plain, ours, target, same=near)

    return make


def calls(family: Family, target: float) -> Callable[[], Benchmark]:
    def count(tower: nn.Module, both: Towers) -> int:
        attend = functional.scaled_dot_product_attention
        with patch.object(functional, "scaled_dot_product_attention", wraps=attend) as counted, torch.no_grad():
            tower(both.pixels, both.grids)
        return counted.call_count

    def make() -> Benchmark:
        both = towers(family)
        return Benchmark(
            f"vision: attention calls for {PICTURES} pictures of {SIDE} px, {LAYERS} layers, {family}",
            lambda: count(both.plain, both),
            lambda: count(both.ours, both),
            target,
            counted=True,
        )

    return make


BENCHMARKS: tuple[Callable[[], Benchmark], ...] = (
    calls("qwen2.5-vl", 10.0),
    calls("qwen3-vl", 2.0),
    speed("qwen2.5-vl", NOT_SLOWER),
    speed("qwen3-vl", NOT_SLOWER),
)

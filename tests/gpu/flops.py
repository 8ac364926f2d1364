"""Floating-point operations that a vision-language model's pass needs, by its architecture (not those computed anew).

A product of a weight with a token is two operations, as is usual for model FLOPs utilisation (arXiv 2204.02311). On the
way back the gradient of the input costs as much again, and that of a weight, where it is trained, once more.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from editloop.training.architecture import Architecture, Vision

WINDOW = 64
"""Patches of an attention window in Qwen2.5-VL's vision tower, where a quarter of the layers see the whole picture. In
Qwen3-VL's tower all do."""


class Work(NamedTuple):
    """What goes through a model in a pass."""

    tokens: int
    pairs: int
    """(query, key) pairs of the language model's attention."""
    grids: list[int]
    """Patches of each picture that the vision tower sees."""


def tree_work(batch: Mapping[str, Tensor]) -> Work:
    """Of a packed prefix tree (editloop.models.backbones.prefix_tree)."""
    before: list[int] = []
    pairs = 0
    for _, length, parent in batch["nodes"].tolist():
        start = before[parent] + batch["nodes"][parent, 1].item() if parent >= 0 else 0
        before.append(start)
        pairs += length * start + length * (length + 1) // 2
    return Work(batch["input_ids"].numel(), int(pairs), batch["image_grid_thw"].prod(1).tolist())


def row_work(input_ids: Tensor, image_grid_thw: Tensor) -> Work:
    """Of rows (B, L) that each go through the model alone, with causal attention."""
    rows, length = input_ids.shape
    return Work(rows * length, rows * length * (length + 1) // 2, image_grid_thw.prod(1).tolist())


def together(parts: list[Work]) -> Work:
    """Several passes as one."""
    grids = [patches for part in parts for patches in part.grids]
    return Work(sum(part.tokens for part in parts), sum(part.pairs for part in parts), grids)


def forward_flops(shape: Architecture, work: Work) -> float:
    """Operations of a forward pass, without the output over the vocabulary."""
    return _linear(shape, work) + _attention(shape, work) + _vision(shape.vision, shape.language.width, work)


def adapter_step_flops(shape: Architecture, work: Work, adapter_weights: int) -> float:
    """Operations of forward and backward where an adapter on the language model is trained and the rest is frozen."""
    adapter = 6.0 * adapter_weights * work.tokens
    vision = _vision(shape.vision, shape.language.width, work)
    return 2 * _linear(shape, work) + 3 * _attention(shape, work) + vision + adapter


def _linear(shape: Architecture, work: Work) -> float:
    return 2.0 * shape.language.layers * shape.language.layer_weights * work.tokens


def _attention(shape: Architecture, work: Work) -> float:
    return 4.0 * shape.language.layers * shape.language.attention * work.pairs


def _vision(vision: Vision, width: int, work: Work) -> float:
    patches, merged = sum(work.grids), 4 * vision.width
    whole = vision.layers // 4 if vision.gated else vision.layers
    pairs = sum(count * (whole * count + (vision.layers - whole) * min(count, WINDOW)) for count in work.grids)
    merger = 2.0 * (1 + vision.deepstack) * (merged * merged + merged * width) * patches / 4
    embedding = 2.0 * 3 * 2 * vision.patch**2 * vision.width * patches
    layers = 2.0 * vision.layers * vision.layer_weights * patches + 4.0 * vision.width * pairs
    return embedding + layers + merger

"""What reads the pictures: the vision tower's attention, and the loader of a training's pairs."""

import copy
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import Qwen2VLImageProcessorPil

from editloop.data.picture_file import png_bytes
from editloop.models.backbones.vision_attention import enable_segment_attention
from editloop.models.edit_reward.inputs import InputMaker
from editloop.models.edit_reward.settings import RewardSettings
from editloop.models.judge_protocol import EditGroup
from editloop.studies.tiny_models.backbone import byte_tokenizer
from editloop.training.prefetch import Prefetch, loader_threads
from tests.gpu.conditions import Conditions, Figures, checked
from tests.gpu.machine import relative_difference, seconds_of
from tests.gpu.vision_language import qwen_config, scale
from tests.measured_training import INSTRUCTION

PICTURES, SIDE, ROUNDS = 8, 512, 5
APART = {"features_apart": 0.02}
"""Largest relative difference of the tower's features between the two ways, in bfloat16."""


def attention(conditions: Conditions) -> Figures:
    """Qwen2.5-VL-7B's tower on eight pictures: a call for each window, as sdpa does it, against one for each layer."""
    from transformers import Qwen2_5_VLModel

    shape = scale(conditions.tiny).architecture
    torch.manual_seed(0)
    config = qwen_config(shape, byte_tokenizer())
    config.text_config.num_hidden_layers = 1  # the tower alone is measured
    with torch.device(conditions.device):
        plain = Qwen2_5_VLModel._from_config(config, dtype=conditions.dtype).eval()
    ours = copy.deepcopy(plain)
    enable_segment_attention(ours)
    side = 32 if conditions.tiny else SIDE
    rows = side // shape.vision.patch // 2 * 2
    width = 3 * 2 * shape.vision.patch**2
    pixels = torch.randn(PICTURES * rows * rows, width, device=conditions.device, dtype=conditions.dtype)
    grids = torch.tensor([[1, rows, rows]] * PICTURES, device=conditions.device)

    @torch.no_grad()
    def features(model: Any) -> Tensor:
        read: Tensor = model.visual(pixels, grids).pooler_output
        return read

    apart = relative_difference(features(ours), features(plain))
    one_by_one, together = (seconds_of(partial(features, model), ROUNDS) for model in (plain, ours))
    figures: Figures = {
        "ratio": one_by_one / together,
        "pictures_per_second": PICTURES / together,
        "plain_pictures_per_second": PICTURES / one_by_one,
        "features_apart": apart,
    }
    return checked(figures, APART)


def loader(conditions: Conditions) -> Figures:
    """Pairs from PNG files to what the tower reads: the loader's threads against one process with the processor."""
    side, pairs = (32, 4) if conditions.tiny else (SIDE, 96)
    shape, size = scale(conditions.tiny).architecture, side * side
    files = _png_files(side)
    config = qwen_config(shape, byte_tokenizer())
    maker = InputMaker(config, byte_tokenizer(), RewardSettings(min_pixels=size, max_pixels=size))

    def pair(number: int) -> dict[str, Tensor]:
        source, *edits = (np.asarray(picture) for picture in _decoded(files, number))
        return maker.collate([EditGroup(INSTRUCTION, source, edits)])

    def ours() -> None:
        makers = (partial(pair, number) for number in range(pairs))
        with Prefetch(makers, threads=threads, ahead=1 + threads) as batches:
            for _ in batches:
                pass

    edges = {"shortest_edge": size, "longest_edge": size}
    processor: Any = Qwen2VLImageProcessorPil(patch_size=shape.vision.patch, size=edges)

    def plainly() -> None:
        for number in range(pairs):
            source, *edits = _decoded(files, number)
            for edit in edits:
                processor([source, edit], return_tensors="pt")

    threads = loader_threads(1)
    ours_seconds, plain_seconds = (seconds_of(way, 1, warm_up=False) for way in (ours, plainly))
    return {
        "ratio": plain_seconds / ours_seconds,
        "pairs_per_second": pairs / ours_seconds,
        "plain_pairs_per_second": pairs / plain_seconds,
        "loader_threads": float(threads),
    }


def _png_files(side: int) -> list[bytes]:
    """Smooth shapes under a camera's noise."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(12):
        shapes = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((side, side), Image.Resampling.BICUBIC))
        noisy = (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)
        files.append(png_bytes(Image.fromarray(noisy)))
    return files


def _decoded(files: list[bytes], number: int) -> Iterator[Image.Image]:
    """Source and both edits of a pair."""
    for place in range(3):
        yield Image.open(BytesIO(files[(3 * number + place) % len(files)])).convert("RGB")

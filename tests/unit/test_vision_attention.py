"""A vision tower's windows and pictures in a few calls against transformers' own call for each of them."""

import copy
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2_5_VLModel, Qwen3VLModel

from editloop.models.backbones import vision_attention
from editloop.models.backbones.vision_attention import attend_by_length, enable_segment_attention
from editloop.models.edit_reward.model import RewardModel
from editloop.models.edit_score.model import EditScoreModel
from editloop.studies.tiny_models.backbone import Family, byte_tokenizer, tiny_config

pytestmark = pytest.mark.floats

CLASSES: dict[Family, Any] = {"qwen2.5-vl": Qwen2_5_VLModel, "qwen3-vl": Qwen3VLModel}
GRIDS = torch.tensor([[1, 18, 18], [1, 18, 18], [1, 10, 24]])
"""Patches of three pictures. Windows of 8 x 8 patches leave narrow ones at the right and the bottom."""
LAYERS = 2


class Towers:
    """The same vision tower twice, and pictures for it."""

    def __init__(self, family: Family):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        config = tiny_config(family, byte_tokenizer(), vision_layers=LAYERS)
        if family == "qwen2.5-vl":
            config.vision_config.fullatt_block_indexes = [1]
        ours = CLASSES[family](config).eval()
        self.plain = copy.deepcopy(ours).visual
        enable_segment_attention(ours)
        self.ours, self.language_model = ours.visual, ours.language_model
        self.pixels = torch.randn(int(GRIDS.prod(1).sum()), 3 * 2 * 4 * 4)

    def calls(self, tower: Any) -> int:
        """Return the attention calls of one pass."""
        attend = functional.scaled_dot_product_attention
        with patch.object(functional, "scaled_dot_product_attention", wraps=attend) as counted:
            tower(self.pixels, GRIDS)
        return counted.call_count


@pytest.fixture(scope="module", params=list(CLASSES))
def towers(request: pytest.FixtureRequest) -> Towers:
    return Towers(request.param)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_answers_and_gradients_are_those_of_separate_calls(towers: Towers, checkpointing: bool) -> None:
    ours, plain = towers.ours, towers.plain
    for tower in (ours, plain):
        tower.zero_grad()
    if checkpointing:
        ours.train()
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        found = ours(towers.pixels, GRIDS).pooler_output
        weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
        (found * weights).sum().backward()
    finally:
        ours.gradient_checkpointing_disable()
        ours.eval()
    expected = plain(towers.pixels, GRIDS).pooler_output
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        if theirs[name].grad is not None:
            assert (parameter.grad - theirs[name].grad).norm() <= 5e-5 * theirs[name].grad.norm() + 1e-9, name


def test_calls_are_as_many_as_there_are_lengths(towers: Towers) -> None:
    plain, ours = towers.calls(towers.plain), towers.calls(towers.ours)
    if towers.ours.config.model_type == "qwen3_vl_vision":
        assert (plain, ours) == (3 * LAYERS, 2 * LAYERS)  # three pictures, two of one size
    else:
        assert (plain, ours) == (9 + 9 + 6 + 3, 3 + 2)  # windows of 64, 16 and 4 patches, then whole pictures


def test_the_language_model_keeps_its_attention(towers: Towers) -> None:
    assert towers.language_model.config._attn_implementation == "sdpa"


def test_a_gpu_kernel_gets_the_whole_layer_with_its_bounds(towers: Towers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself runs on a GPU alone: here is one that obeys the same arguments."""
    longest = []

    def kernel(
        q: Tensor, k: Tensor, v: Tensor, bounds: Tensor, key_bounds: Tensor, most: int, most_keys: int, scale: float
    ) -> Tensor:
        assert bounds is key_bounds
        assert most == most_keys == bounds.diff().max()
        longest.append(most)
        rows = [slice(start, end) for start, end in pairwise(bounds.tolist())]
        return torch.cat([attend_by_length(q[row], k[row], v[row], [len(q[row])], scale) for row in rows])

    monkeypatch.setattr(vision_attention, "has_varlen_kernel", lambda query: True)
    monkeypatch.setattr(vision_attention, "varlen_attn", kernel)
    with torch.no_grad():
        found, expected = (tower(towers.pixels, GRIDS).pooler_output for tower in (towers.ours, towers.plain))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert longest == [64 if towers.ours.config.model_type == "qwen2_5_vl_vision" else 324, 324]


def test_a_cpu_has_no_such_kernel() -> None:
    assert not vision_attention.has_varlen_kernel(torch.zeros(8, 2, 16, dtype=torch.bfloat16))


def test_both_judges_read_pictures_by_it() -> None:
    reward, score = RewardModel.load("tiny-reward"), EditScoreModel.load("tiny-score")
    for visual in (reward.backbone.visual, score.backbone.model.visual):
        assert visual.config._attn_implementation == vision_attention.ATTENTION_NAME

"""A layer with its adapter: as PEFT's own, in bfloat16, and compiled."""

from functools import partialmethod
from unittest.mock import patch

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.tuners.lora import Linear
from torch import nn

from editloop.models.editors.adapted_linear import ADAPTER, AdaptedLinear
from tests.tiny_editors import build_tiny_editor

pytestmark = pytest.mark.floats


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adapted_layer_computes_what_pefts_own_does_forwards_and_back(precision):
    torch.manual_seed(0)
    config = LoraConfig(r=3, lora_alpha=6)
    layers = [kind(nn.Linear(5, 7), ADAPTER, config, r=3, lora_alpha=6) for kind in (Linear, AdaptedLinear)]
    for weight in layers[0].parameters():
        nn.init.normal_(weight)
    layers[1].load_state_dict(layers[0].state_dict())
    x, results = torch.randn(2, 4, 5), []
    for layer in layers:
        entered = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            output = layer(entered)
        (output.float() ** 3).sum().backward()
        adapters = [layer.lora_A[ADAPTER].weight.grad, layer.lora_B[ADAPTER].weight.grad]
        results.append([output.float(), entered.grad, *adapters])
    largest = [(one - other).norm() / other.norm() for one, other in zip(*results, strict=True)]
    assert max(largest) < (1e-5 if precision == "float32" else 0.02)


def test_in_bfloat16_the_adapter_stays_beside_its_layers():
    editor = build_tiny_editor("kontext")
    for one in editor.add_adapter(2, 4):
        one.data.fill_(0.05)
    editor.bf16 = True
    weights = [layer.base_layer.weight for layer in editor.network.modules() if isinstance(layer, AdaptedLinear)]
    before = [weight.data_ptr() for weight in weights]
    with editor.merged():
        assert [weight.data_ptr() for weight in weights] == before


def test_compiled_blocks_answer_as_before_with_the_adapter_merged_and_without_it():
    editor = build_tiny_editor("kontext")
    sources = np.random.default_rng(0).integers(0, 256, (2, 32, 64, 3), dtype=np.uint8)
    condition = editor.encode(["make the circle red", "remove the blue square"], sources)
    x, sigma = editor.noise(2, (32, 64), torch.Generator().manual_seed(1)), torch.full((2,), 0.5)
    for one in editor.add_adapter(2, 4):
        one.data.normal_(std=0.05)

    def answers():
        editor.network.zero_grad()
        velocity = editor.velocity(x, sigma, condition)
        velocity.square().mean().backward()
        gradients = [one.grad.clone() for one in editor.network.parameters() if one.grad is not None]
        with torch.no_grad(), editor.merged():
            merged = editor.velocity(x, sigma, condition)
        with torch.no_grad(), editor.base():
            return [velocity.detach(), merged, editor.velocity(x, sigma, condition), *gradients]

    plain = answers()
    # traced as for any backend; generating code takes minutes, and is torch's own
    with patch.object(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager")):
        editor.compile_blocks()
    torch.testing.assert_close(answers(), plain, atol=1e-5, rtol=1e-4)

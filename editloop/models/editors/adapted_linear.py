"""A linear layer of an editor's network with its low-rank adapter, computed in as few passes as possible."""

import torch
import torch.nn.functional as functional
from peft.tuners.lora import Linear
from torch import Tensor

ADAPTER = "editloop"
"""Name of the adapter inside the network."""


class AdaptedLinear(Linear):
    """PEFT's LoRA layer with a shorter forward pass: x W^T + b + (x A^T) (s B)^T, the last sum and product in one call.

    PEFT's own multiplies the adapter's output by s and adds it in two more passes over all tokens, and as many in the
    backward pass. Under autocast it also converts x to the adapter's float32 and back.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output, (..., out features).

        Args:
            x: Input, (..., in features).
        """
        kind = x.device.type
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # once, for the layer and for its adapter
        output: Tensor = self.base_layer(x)
        if self.disable_adapters:
            return output
        down, up = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        assert isinstance(down, Tensor)
        assert isinstance(up, Tensor)
        inner = functional.linear(x, down.to(x.dtype))
        scaled = (up * self.scaling[ADAPTER]).to(output.dtype)
        added = torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), scaled.T)
        return added.view_as(output)

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Return the layer's weight with the adapter added, (out features, in features), in the layer's type."""
        weight = self.base_layer.weight
        assert isinstance(weight, Tensor)
        delta: Tensor = self.get_delta_weight(ADAPTER)
        return weight + delta.to(weight.dtype)

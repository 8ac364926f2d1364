"""Base of transformers that diffusers does not have, made of its blocks."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.loaders import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class OwnNetwork(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]  # diffusers' own
    """A transformer with diffusers' saving, adapters and gradient checkpointing.

    Give `_no_split_modules` and `_repeated_blocks` the names of its blocks' classes.
    """

    _supports_gradient_checkpointing = True
    gradient_checkpointing: bool = False

    def run_block(self, block: nn.Module, *inputs: Any) -> Any:
        """Return a block's output. With gradient checkpointing its backward pass runs it again.

        Args:
            block: The block.
            *inputs: Its inputs, by position.
        """
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)  # type: ignore[misc]  # None until enabled
        return block(*inputs)

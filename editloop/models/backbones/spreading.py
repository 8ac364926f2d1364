"""Weights that are spread over the ranks of a job, as DeepSpeed's ZeRO stage 3 keeps them: a part of each tensor each.

Rank 0 reads the tensors from their files one after the other. Each is sent to all ranks, and every rank keeps its part:
a file is read once, and a rank has at most one tensor whole.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
import torch.distributed as distributed
from torch import Tensor, nn

Spread = Literal["device", "host"]
"""Where each rank keeps its parts: on the device that it computes on, or in main memory."""


class ParameterSpreader:
    """Gives the parameters of an empty model their values, and each rank its part of them. Every rank calls it."""

    def __init__(self, spread: Spread):
        """Take the place of the parts.

        Args:
            spread: Where each rank keeps its parts.
        """
        self._remote_device = "cpu" if spread == "host" else None
        self._first: nn.Parameter | None = None
        self._device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None

    def place(self, parameter: nn.Parameter, value: Tensor | None, dtype: torch.dtype) -> None:
        """Spread a parameter.

        Args:
            parameter: A parameter on the meta device, which is changed in place.
            value: Its values on rank 0; None on other ranks.
            dtype: Type of the weights in memory.
        """
        import deepspeed  # takes 3 s, so import it only where needed

        if value is None:
            value = torch.empty(parameter.shape, dtype=dtype, device=self._device)
        fill(parameter, value.to(self._device, dtype))
        if self._first is None:
            deepspeed.zero.Init(module=nn.ParameterList([parameter]), remote_device=self._remote_device)
            self._first = parameter
        else:
            convert: Callable[[list[nn.Parameter]], None] = getattr(self._first, "convert_to_zero_parameters")  # noqa: B009
            convert([parameter])


def fill(parameter: nn.Parameter, value: Tensor) -> None:
    """Give a parameter of an empty model its values, wherever modules share it.

    Args:
        parameter: A parameter on the meta device.
        value: Its values.
    """
    torch.utils.swap_tensors(parameter, nn.Parameter(value, parameter.requires_grad))


def is_spread(parameter: Tensor) -> bool:
    """Return whether each rank has only a part of a parameter.

    Args:
        parameter: The parameter.
    """
    return hasattr(parameter, "ds_id")


def local_part(parameter: Tensor) -> Tensor:
    """Return what this rank has of a parameter: the parameter itself, or its part of one that is spread.

    Args:
        parameter: The parameter.
    """
    part: Tensor = getattr(parameter, "ds_tensor", parameter)
    return part


def whole_shape(parameter: Tensor) -> tuple[int, ...]:
    """Return a parameter's shape, also where it is spread.

    Args:
        parameter: The parameter.
    """
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return tuple(shape)


@contextmanager
def gathered(parameter: Tensor, *, changed: bool = False) -> Iterator[None]:
    """Have a parameter whole on every rank within the block. Every rank enters it.

    Args:
        parameter: The parameter. One that is not spread is whole anyway.
        changed: Whether the block changes it. Of a spread one every rank gets its part of what rank 0 has at the end.
    """
    if not is_spread(parameter):
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0 if changed else None):
        yield


def enable_spread_passes(model: nn.Module, spread: Spread) -> None:
    """Make a spread model callable, for passes without gradient. Every rank calls it, and makes the same passes.

    Before a layer computes its weights are gathered, and let go after it.

    Args:
        model: The model, in evaluation mode.
        spread: Where each rank keeps its parts.
    """
    import deepspeed

    zero = {"stage": 3} | ({"offload_param": {"device": "cpu"}} if spread == "host" else {})
    bf16 = any(is_spread(parameter) and parameter.dtype == torch.bfloat16 for parameter in model.parameters())
    config = {
        "train_batch_size": distributed.get_world_size(),
        "zero_optimization": zero,
        "bf16": {"enabled": bf16},
        "steps_per_print": 2**31,
    }
    if torch.cuda.is_available():
        model.to(torch.device("cuda", torch.cuda.current_device()))  # buffers, and what was not spread
    deepspeed.initialize(model=model, config=config)

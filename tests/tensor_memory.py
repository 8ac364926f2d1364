"""Memory of tensors: the most that is held at a time, and what autograd keeps for the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile


def tensor_peak(run: Callable[[], object]) -> int:
    """The most bytes of tensors on the CPU that `run` holds at a time, beside those that were there before.

    Counted by the allocator: no matter what the process had freed before or what the machine does meanwhile.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as profiler:
        run()
    held = peak = 0
    for event in profiler.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak


class KeptBytes:
    """Bytes that autograd keeps, each storage once, without parameters."""

    total: int = 0


@contextmanager
def kept_by_autograd(network: nn.Module) -> Iterator[KeptBytes]:
    """Count what passes through the network keep for the backward pass; on the meta device too."""
    kept, storages = KeptBytes(), dict[int, Tensor]()
    weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in storages and storage._cdata not in weights:
            storages[storage._cdata] = tensor
            kept.total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept

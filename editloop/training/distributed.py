"""The ranks of a training job: their start, what they agree on, and how they are asked to stop."""

import os
import signal
from types import FrameType, TracebackType
from typing import Any, Self

import torch
import torch.distributed as distributed
from torch import Tensor


def start_rank() -> None:
    """Join the job that torchrun started: NCCL with GPUs, one a rank; gloo without. One thread a rank on the CPU."""
    import deepspeed
    import deepspeed.ops

    import_muon_uncompiled()
    # Its start-up compilation of a shared-memory communicator takes 90 s; gloo does without. Reading the table of its
    # operators, rather than setting it, would run compilers to see which of them can be built here.
    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # else all ranks of a machine would take its first GPU
    else:
        torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def import_muon_uncompiled() -> None:
    """Import the optimizer that DeepSpeed's start of an engine looks at, without what it compiles at its import.

    Preparing that compilation imports all of TorchInductor: a second or two of CPU a rank, for an optimizer that nobody
    uses here.
    """
    from deepspeed.runtime import compiler

    compile_function = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compile_function


def end_rank() -> None:
    """Leave the job when all ranks have come this far."""
    distributed.barrier()
    distributed.destroy_process_group()


def device() -> torch.device:
    """Where this rank computes."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def all_reduce_sum(values: list[float]) -> list[float]:
    """Sums over all ranks, in float64; every rank calls it and gets the same."""
    sums = torch.tensor(values, dtype=torch.float64, device=device())
    distributed.all_reduce(sums)
    return [float(value) for value in sums]


def broadcast_object(value: Any) -> Any:
    """Rank 0's value, on every rank."""
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def to_device(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on this rank's device."""
    return {name: tensor.to(device(), non_blocking=True) for name, tensor in tensors.items()}


def seed_step(seed: int, step: int) -> None:
    """Seed this rank's noise (dropout) from the step alone: a resumed training draws what an unbroken one draws."""
    mixed = (seed * 1_000_003 + step) * 10_007 + distributed.get_rank()
    torch.manual_seed(mixed % 2**63)


def step_seed() -> int:
    """What `seed_step` said last, without the rank: for noise that must not depend on how ranks share a step."""
    return torch.initial_seed() // 10_007


class StopRequest:
    """Within its block SIGTERM and SIGINT only set `asked`, so that the step in progress can end and be saved."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

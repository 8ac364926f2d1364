"""Ranks of a training job: start and end, collectives, seeds, and requests to stop."""

import os
import shutil
import signal
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as distributed
from torch import Tensor

from editloop.logs import log_to_stderr

TRANSFER_BYTES = 64 * 2**20
"""Size of the parts in which a file goes from machine to machine."""


def start_rank() -> None:
    """Join the job that torchrun started.

    With GPUs the backend is NCCL, with one GPU per rank. Otherwise it is gloo, with one CPU thread per rank.
    """
    import deepspeed
    import deepspeed.ops

    log_to_stderr()
    import_muon_uncompiled()
    # DeepSpeed would compile a shared-memory communicator at its start, which takes 90 s; gloo does not need it. The
    # table of operators is replaced, because reading it would run compilers to see which operators can be built here.
    deepspeed.ops.__compatible_ops__ = {"deepspeed_shm_comm": False}
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # else all ranks of a machine use its first GPU
    else:
        torch.set_num_threads(1)
    deepspeed.init_distributed(dist_backend="nccl" if torch.cuda.is_available() else "gloo", verbose=False)


def import_muon_uncompiled() -> None:
    """Import the optimiser that DeepSpeed looks at when an engine starts, without compiling it.

    Preparing that compilation imports all of TorchInductor. That takes each rank a second or two of CPU time, for an
    optimiser that is not used here.
    """
    from deepspeed.runtime import compiler

    compile_function = compiler.compile
    compiler.compile = lambda *_, **__: lambda function: function
    try:
        import deepspeed.runtime.zero.muon.original_muon  # noqa: F401
    finally:
        compiler.compile = compile_function


def end_rank() -> None:
    """Wait for all ranks, then leave the job."""
    distributed.barrier()
    distributed.destroy_process_group()


def device() -> torch.device:
    """Return the device that this rank computes on."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def all_reduce_sum(values: Sequence[float] | Tensor) -> list[float]:
    """Sum values over all ranks, in float64. Every rank calls it and gets the same sums.

    The sums are fetched from the device at once, which waits for the device's work so far.

    Args:
        values: This rank's values, equally many on every rank. A tensor (N,) is left as it is.
    """
    if isinstance(values, Tensor):
        sums = values.to(device(), torch.float64, copy=True)
    else:
        sums = torch.tensor(values, dtype=torch.float64, device=device())
    distributed.all_reduce(sums)
    fetched: list[float] = sums.tolist()
    return fetched


def all_reduce_max(value: int) -> int:
    """Return the largest of all ranks' values. Every rank calls it.

    Args:
        value: This rank's value.
    """
    largest = torch.tensor(value, device=device())
    distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
    return int(largest)


def broadcast_object(value: Any) -> Any:
    """Return rank 0's value on every rank. Every rank calls it.

    Args:
        value: The value to send, which must be picklable. Ignored on other ranks.
    """
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


def rank_on_machine() -> int:
    """Return this rank's number on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def ranks_on_machine() -> int:
    """Return the number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_first_on_machine() -> bool:
    """Return whether this is the first rank of its machine."""
    return rank_on_machine() == 0


def is_first_on_disk(folder: Path) -> bool:
    """Return whether this is the first rank of those that see the same folder. Every rank calls it.

    Machines may have a disk each, or share one.

    Args:
        folder: A folder that rank 0 can write to.
    """
    mark: str = broadcast_object(f".seen-by-rank-0-{uuid.uuid4().hex}")
    if distributed.get_rank() == 0:
        (folder / mark).touch()
    distributed.barrier()
    is_first = distributed.get_rank() == 0 or (is_first_on_machine() and not (folder / mark).exists())
    distributed.barrier()
    if distributed.get_rank() == 0:
        (folder / mark).unlink()
    return is_first


def gather_files(folder: Path) -> None:
    """Move what the ranks of other machines wrote in their folder to rank 0's. Every rank calls it.

    On one machine nothing happens, nor where all machines share the folder.

    Args:
        folder: This machine's folder.
    """
    distributed.barrier()  # all files are written
    rank, here = distributed.get_rank(), None
    if is_first_on_disk(folder) and rank:
        here = [(str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*") if path.is_file()]
    listed: list[list[tuple[str, int]] | None] = [None] * distributed.get_world_size()
    distributed.all_gather_object(listed, here)
    for sender, files in enumerate(listed):
        for name, size in files or ():
            if rank == sender:
                _send_file(folder / name)
            elif rank == 0:
                _receive_file(folder / name, size, sender)
    if here is not None:
        shutil.rmtree(folder)


def _send_file(path: Path) -> None:
    with path.open("rb") as file:
        while part := file.read(TRANSFER_BYTES):
            distributed.send(torch.frombuffer(bytearray(part), dtype=torch.uint8).to(device()), dst=0)


def _receive_file(path: Path, size: int, sender: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        while rest := size - file.tell():
            part = torch.empty(min(rest, TRANSFER_BYTES), dtype=torch.uint8, device=device())
            distributed.recv(part, src=sender)
            file.write(part.cpu().numpy().data)


def to_device(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors on this rank's device.

    Args:
        tensors: Tensors by name.
    """
    return {name: tensor.to(device(), non_blocking=True) for name, tensor in tensors.items()}


def seed_step(seed: int, step: int) -> None:
    """Seed this rank's random numbers (dropout) from the step alone, so that a resumed training repeats the same draws.

    Args:
        seed: The training's seed.
        step: Number of optimiser steps done.
    """
    mixed = (seed * 1_000_003 + step) * 10_007 + distributed.get_rank()
    torch.manual_seed(mixed % 2**63)


def step_seed() -> int:
    """Return the latest seed of `seed_step` without its rank.

    Use it for noise that must not depend on how ranks share a step.
    """
    return torch.initial_seed() // 10_007


class StopRequest:
    """Within its block, SIGTERM and SIGINT only set `requested`, so that the step in progress can end and be saved."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

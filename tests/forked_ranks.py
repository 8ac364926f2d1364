"""Ranks of a training forked from one process that has imported everything: a test's training starts in no time.

A rank of its own imports torch, DeepSpeed, PEFT and diffusers for about 5 s of CPU, and torchrun itself takes 2 s more.
Here Python's fork server imports them once a session. What runs in the ranks is the same module with the same
arguments and environment; torchrun itself is tested in test_launch.py, by the loop and by `dvc repro`.
"""

import multiprocessing
import os
import random
import runpy
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

from editloop.errors import EditLoopError
from editloop.training import launch

PRELOADED = (
    "editloop.training.edit_reward.train",
    "editloop.training.edit_score.train",
    "editloop.training.editor_rl.train",
    "editloop.training.editor_sft.train",
    "editloop.training.editor_dpo.train",
    "editloop.models.editors.opening",
    "editloop.scoring.opening",
    "deepspeed.runtime.zero.muon.original_muon",  # imported by each engine, and compiles at its import
    "deepspeed.runtime.zero.stage3",
    "peft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "diffusers.pipelines.flux.pipeline_flux_kontext",
)
TAIL_LINES = 40


def free_port() -> int:
    """A port of the loopback that nobody listens on, below those that Linux gives to outgoing connections.

    Ranks take a second to listen on it. Meanwhile any connection of this machine may get one of the others.
    """
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def start_ranks(
    module: str, arguments: list[str], processes: int, log: Path, environment: dict[str, str] | None = None
) -> list[BaseProcess]:
    """Start `python -m MODULE ARGUMENTS` as the ranks of one job, with torchrun's variables in their environment.

    Args:
        module: What each rank runs as `__main__`.
        arguments: The rank's command line.
        processes: Number of ranks.
        log: File that all ranks write to.
        environment: Variables beside those of this process.

    Returns:
        The running processes, by rank.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(processes)}
    variables = {**os.environ, **(environment or {}), **job, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    ranks: list[BaseProcess] = []
    for rank in range(processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(processes)}
        ranks.append(
            context.Process(target=_run_rank, args=(module, arguments, variables | place, str(log), str(Path.cwd())))
        )
        ranks[-1].start()
    return ranks


def run_ranks(module: str, arguments: list[str], processes: int, log: Path) -> None:
    """Start the ranks and wait for their end. Raises EditLoopError with the log's tail where one fails."""
    ranks = start_ranks(module, arguments, processes, log)
    running = {rank.sentinel: rank for rank in ranks}
    try:
        while running:
            for sentinel in wait(list(running)):
                ended = running.pop(sentinel)  # type: ignore[arg-type]
                ended.join()
                if ended.exitcode:
                    tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL_LINES:])
                    raise EditLoopError(f"{module}: ended with status {ended.exitcode}. Its last lines:\n{tail}")
    finally:
        for rank in running.values():
            rank.kill()
            rank.join()


@contextmanager
def forked_launches() -> Iterator[None]:
    """Within it `editloop.training.launch.launch_ranks` forks its ranks instead of starting torchrun."""

    def run_here(command: list[str], environment: Mapping[str, str]) -> None:
        start = len(command) - 1 - command[::-1].index("-m")
        processes = int(command[command.index("--nproc-per-node") + 1])
        with tempfile.TemporaryDirectory() as folder:
            run_ranks(command[start + 1], command[start + 2 :], processes, Path(folder) / "ranks.log")

    with patch.object(launch, "run_torchrun", run_here):
        yield


def _run_rank(module: str, arguments: list[str], variables: dict[str, str], log: str, folder: str) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def killed_soon(checkpoints: Path) -> Callable[..., None]:
    """In the place of a stage's `launch`: all ranks killed soon after the first checkpoint below `checkpoints`."""

    def launch(module: str, job_file: Path, *, processes: int) -> None:
        log = checkpoints.parent / "killed.log"
        ranks = start_ranks(module, [str(job_file)], processes, log)
        while not list(checkpoints.glob("*/step-*/manifest.json")):
            assert all(rank.is_alive() for rank in ranks), log.read_text()
            time.sleep(0.01)
        for rank in ranks:
            rank.kill()
            rank.join()
        raise EditLoopError("killed")

    return launch

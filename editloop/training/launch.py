"""Run the ranks of a distributed training as processes of this machine, or of several, by torchrun."""

import ctypes
import logging
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import BaseModel, Field

from editloop.content import write_file
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.processes import stop_tree
from editloop.training.checkpoint_mirror import mirrored
from editloop.training.rank import LOST_RANK

log = logging.getLogger(__name__)

NODES_FILE = "nodes.json"
"""File in a training's folder by which further machines join it."""
LOOPBACK_ONLY = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
"""Variables with which the ranks of one machine talk to each other on its loopback."""
REASON = re.compile(r"rank \d+: ")
"""Beginning of the line in which a rank says why it ends."""
TAIL_LINES = 40
"""Number of last output lines of the ranks that an error message shows."""


class LocalLaunchSettings(EnvironmentSettings):
    """Settings for ranks on this machine, and on others that join it."""

    stop_seconds: float = Field(60.0, ge=0)
    """Seconds that stopped ranks have to save their state before they are killed."""
    nodes: int = Field(1, ge=1)
    """Machines that share the ranks. The others join by `editloop join`."""
    rendezvous: str = Field("", pattern=r"^$|^[^\s:]+:\d+$")
    """HOST:PORT of this machine at which the other machines find it."""


class JoinedTraining(BaseModel):
    """A training on several machines, as those that join it read it."""

    module: str
    """Python module that each rank runs."""
    nodes: int
    processes: int
    """Ranks of each machine."""
    rendezvous: str
    """HOST:PORT of the first machine."""


class Launcher(Protocol):
    """Runs a training's ranks as one torch.distributed job and waits for its end."""

    def __call__(self, module: str, job_file: Path, *, processes: int) -> None:
        """Run `python -m MODULE JOB_FILE` as ranks.

        Args:
            module: Python module that each rank runs.
            job_file: The training's job file, in the training's folder.
            processes: Number of ranks.

        Raises:
            EditLoopError: The job does not succeed.
        """


def launch_ranks(module: str, job_file: Path, *, processes: int) -> None:
    """Run a training by torchrun (a `Launcher`). An interrupt stops all ranks.

    With EDITLOOP_NODES further machines take their share of the ranks, once they have joined by `join_training`.
    Checkpoints are copied to object storage where EDITLOOP_CHECKPOINTS names one.

    Args:
        module: Python module that each rank runs.
        job_file: The training's job file, in the training's folder.
        processes: Number of ranks, over all machines.

    Raises:
        EditLoopError: A rank fails. The message has the last lines of the output.
    """
    settings = LocalLaunchSettings()
    per_node = ranks_per_node(processes, settings.nodes)
    if settings.nodes == 1:
        options, environment = ["--rdzv-backend", "loopback", "--rdzv-endpoint", "127.0.0.1"], LOOPBACK_ONLY
    else:
        if not settings.rendezvous:
            raise EditLoopError(
                f"EDITLOOP_RENDEZVOUS is not set, and EDITLOOP_NODES is {settings.nodes}: give HOST:PORT of this "
                "machine, as the others reach it."
            )
        training = JoinedTraining(
            module=module, nodes=settings.nodes, processes=per_node, rendezvous=settings.rendezvous
        )
        write_file(job_file.parent / NODES_FILE, training.model_dump_json())
        options, environment = _node_options(training, 0), {}
        log.info(
            "waits for %d more machines: `editloop join %s NODE` on each, NODE from 1", settings.nodes - 1, job_file
        )
    with mirrored(job_file.parent):
        run_torchrun(torchrun_arguments(module, job_file, per_node, options), environment)


def join_training(job_file: Path, node: int) -> None:
    """Run this machine's ranks of a training that another machine has started with EDITLOOP_NODES.

    Both must see the training's folder, and what the training reads, at the same paths.

    Args:
        job_file: The training's job file.
        node: Number of this machine, from 1.

    Raises:
        EditLoopError: There is no such training, it has no such machine, or a rank fails.
    """
    path = job_file.parent / NODES_FILE
    if not path.is_file():
        raise EditLoopError(
            f"{path}: not there. Start the training with EDITLOOP_NODES on the first machine, and give the job file "
            "that it names."
        )
    training = JoinedTraining.model_validate_json(path.read_bytes())
    if not 0 < node < training.nodes:
        raise EditLoopError(f"node {node}: the training has {training.nodes} machines; join as 1..{training.nodes - 1}")
    run_torchrun(torchrun_arguments(training.module, job_file, training.processes, _node_options(training, node)), {})


def ranks_per_node(processes: int, nodes: int) -> int:
    """Return how many ranks each machine runs.

    Args:
        processes: Number of ranks.
        nodes: Number of machines or pods.

    Raises:
        EditLoopError: The machines cannot have equally many.
    """
    per_node, rest = divmod(processes, nodes)
    if rest:
        raise EditLoopError(f"{processes} processes on {nodes} nodes: each node needs as many; change one of them.")
    return per_node


def torchrun_arguments(module: str, job_file: Path, processes: int, options: Sequence[str] = ()) -> list[str]:
    """Return the job's command line after the interpreter.

    Args:
        module: Python module that each rank runs.
        job_file: Its argument.
        processes: Number of ranks on this machine.
        options: torchrun's options of the rendezvous; without any its environment has them.
    """
    agent = ["-m", "editloop.training.agent", "--nproc-per-node", str(processes), *options]
    return [*agent, "-m", "editloop.training.rank", module, str(job_file)]


def _node_options(training: JoinedTraining, node: int) -> list[str]:
    host, _, port = training.rendezvous.rpartition(":")
    address = ["--master-addr", host, "--master-port", port]
    return ["--nnodes", str(training.nodes), "--node-rank", str(node), *address]


def _terminate_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent process dies (PR_SET_PDEATHSIG = 1). Runs in the child before exec."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def run_torchrun(command: list[str], environment: Mapping[str, str]) -> None:
    """Run torchrun, show what the ranks print, and wait for its end. An interrupt stops all ranks.

    Args:
        command: Arguments of `python`.
        environment: Variables that the ranks get where this process has none of the name.

    Raises:
        EditLoopError: A rank fails. The message has the last lines of the output.
    """
    grace = LocalLaunchSettings().stop_seconds
    variables = {**environment, **os.environ} | {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(grace)),
    }
    process = subprocess.Popen(
        [sys.executable, *command],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_terminate_with_parent if sys.platform == "linux" else None,
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    failed = False
    try:
        assert process.stdout is not None
        for line in process.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            failed = failed or "failed (exitcode" in line  # what follows is torchrun's own report
            if not failed:
                tail.append(line)
        status = process.wait()
    except BaseException:
        stop_tree(psutil.Process(process.pid), grace)
        raise
    if status:
        raise EditLoopError(
            _reason(tail) or f"{' '.join(command)}: ended with status {status}. The ranks' last lines:\n{''.join(tail)}"
        )


def _reason(lines: Iterable[str]) -> str | None:
    """Return the line in which a rank says why it ended; None where one was stopped by an unforeseen error."""
    reasons = []
    for line in lines:
        if line.startswith("Traceback"):
            return None
        if REASON.match(line):
            reasons.append(line.rstrip())
    return min(reasons, key=lambda reason: LOST_RANK in reason, default=None)

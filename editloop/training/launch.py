"""Run the ranks of a distributed training as processes of this machine, by torchrun."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Protocol

import psutil
from pydantic import Field

from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.processes import stop_tree
from editloop.training.checkpoint_mirror import mirrored

TAIL_LINES = 40
"""Number of last output lines of the ranks that an error message shows."""


class LocalLaunchSettings(EnvironmentSettings):
    """Settings for ranks on this machine."""

    stop_seconds: float = Field(60.0, ge=0)
    """Seconds that stopped ranks have to save their state before they are killed."""


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
    """Run a training on this machine by torchrun (a `Launcher`). An interrupt stops all ranks.

    Checkpoints are copied to object storage where EDITLOOP_CHECKPOINTS names one.

    Args:
        module: Python module that each rank runs.
        job_file: The training's job file, in the training's folder.
        processes: Number of ranks.

    Raises:
        EditLoopError: A rank fails. The message has the last lines of the output.
    """
    with mirrored(job_file.parent):
        run_torchrun(torchrun_arguments(module, job_file, processes, _free_port()))


def torchrun_arguments(module: str, job_file: Path, processes: int, port: int | None = None) -> list[str]:
    """Return the job's command line after the interpreter.

    Args:
        module: Python module that each rank runs.
        job_file: Its argument.
        processes: Number of ranks on this machine.
        port: Port of the rendezvous; None leaves it to torchrun's environment.
    """
    port_option = ["--master-port", str(port)] if port else []
    options = ["--nproc-per-node", str(processes), *port_option]
    return ["-m", "torch.distributed.run", *options, "-m", module, str(job_file)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _terminate_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent process dies (PR_SET_PDEATHSIG = 1). Runs in the child before exec."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def run_torchrun(command: list[str]) -> None:
    """Run torchrun, show what the ranks print, and wait for its end. An interrupt stops all ranks.

    Args:
        command: Arguments of `python`.

    Raises:
        EditLoopError: A rank fails. The message has the last lines of the output.
    """
    grace = LocalLaunchSettings().stop_seconds
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(grace)),
    }
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
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
        raise EditLoopError(f"{' '.join(command)}: ended with status {status}. The ranks' last lines:\n{''.join(tail)}")

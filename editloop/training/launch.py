"""Runs the ranks of a distributed training as processes of this machine, by torchrun."""

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

TAIL_LINES = 40
"""Lines of the ranks' output in a message."""


class LocalLaunchSettings(EnvironmentSettings):
    """How ranks run on this machine."""

    stop_seconds: float = Field(60.0, ge=0)
    """How long ranks that are stopped may take to save what they have, before they are killed."""


class Launcher(Protocol):
    """Runs `python -m MODULE ARGUMENTS` as the ranks of one torch.distributed job, and waits for its end."""

    def __call__(
        self, module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
    ) -> None:
        """Run the job.

        Args:
            module: Python module that each rank runs.
            arguments: Its command-line arguments.
            processes: Number of ranks.
            log: File that gets the output of local ranks beside stdout.
            result: File that the job leaves.

        Raises:
            EditLoopError: The job does not succeed.
        """


def launch_ranks(
    module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
) -> None:
    """The `Launcher` of this machine: torchrun starts the ranks, and an interrupt stops all of them.

    Raises:
        EditLoopError: A rank fails; with the last lines of the log.
    """
    _run_torchrun(
        torchrun_arguments(module, arguments, processes, _free_port()), log, LocalLaunchSettings().stop_seconds
    )


def torchrun_arguments(module: str, arguments: list[str], processes: int, port: int | None = None) -> list[str]:
    """The job's command line after the interpreter; without `port` torchrun takes it from its environment."""
    port_option = ["--master-port", str(port)] if port else []
    options = ["--nproc-per-node", str(processes), *port_option]
    return ["-m", "torch.distributed.run", *options, "-m", module, *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _terminate_with_parent() -> None:
    """Runs in the child before exec: Linux sends it SIGTERM when the starting process dies (PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _run_torchrun(command: list[str], log: Path | None, grace: float) -> None:
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
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    try:
        assert process.stdout is not None
        with (log or Path(os.devnull)).open("w") as copy:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                copy.write(line)
                failed = failed or "failed (exitcode" in line  # from here on torchrun tells its own story
                if not failed:
                    tail.append(line)
        status = process.wait()
    except BaseException:
        stop_tree(psutil.Process(process.pid), grace)
        raise
    if status:
        raise EditLoopError(
            f"{' '.join(command)}: ended with status {status}. The ranks' last lines:\n{''.join(tail)}"
            + (f"The whole log is {log}." if log else "")
        )

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

TAIL_LINES = 40
"""Number of last output lines of the ranks that an error message shows."""


class LocalLaunchSettings(EnvironmentSettings):
    """Settings for ranks on this machine."""

    stop_seconds: float = Field(60.0, ge=0)
    """Seconds that stopped ranks have to save their state before they are killed."""


class Launcher(Protocol):
    """Runs `python -m MODULE ARGUMENTS` as the ranks of one torch.distributed job and waits for its end."""

    def __call__(
        self, module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
    ) -> None:
        """Run the job.

        Args:
            module: Python module that each rank runs.
            arguments: The module's command-line arguments.
            processes: Number of ranks.
            log: File that receives the output of local ranks, in addition to stdout.
            result: File that the job leaves when it succeeds.

        Raises:
            EditLoopError: The job does not succeed.
        """


def launch_ranks(
    module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
) -> None:
    """Run a job on this machine by torchrun (a `Launcher`). An interrupt stops all ranks.

    Args:
        module: Python module that each rank runs.
        arguments: The module's command-line arguments.
        processes: Number of ranks.
        log: File that receives the ranks' output, in addition to stdout.
        result: Unused here: torchrun's exit status says whether the job succeeded.

    Raises:
        EditLoopError: A rank fails. The message has the last lines of the output.
    """
    _run_torchrun(
        torchrun_arguments(module, arguments, processes, _free_port()), log, LocalLaunchSettings().stop_seconds
    )


def torchrun_arguments(module: str, arguments: list[str], processes: int, port: int | None = None) -> list[str]:
    """Return the job's command line after the interpreter.

    Args:
        module: Python module that each rank runs.
        arguments: The module's command-line arguments.
        processes: Number of ranks on this machine.
        port: Port of the rendezvous; None leaves it to torchrun's environment.
    """
    port_option = ["--master-port", str(port)] if port else []
    options = ["--nproc-per-node", str(processes), *port_option]
    return ["-m", "torch.distributed.run", *options, "-m", module, *arguments]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _terminate_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent process dies (PR_SET_PDEATHSIG = 1). Runs in the child before exec."""
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
                failed = failed or "failed (exitcode" in line  # what follows is torchrun's own report
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

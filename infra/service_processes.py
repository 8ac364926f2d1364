"""Processes of the local services: start them, find them by a mark in their environment, stop them; and free ports.

The mark is `EDITLOOP_SERVICE=<home>:<name>`. Unlike a pid file, it exists from the moment a process starts, and a
reused pid is never mistaken for a service.
"""

import os
import socket
import subprocess
from pathlib import Path

import psutil

from editloop.processes import quietly

MARK = "EDITLOOP_SERVICE"
"""The environment variable that marks a service's processes."""
STOP_SECONDS = 10
"""Seconds that processes have to end after SIGTERM."""


def start_process(
    home: Path, name: str, command: list[str], *, environment: dict[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a marked process in its own session, so that Ctrl-C at the terminal does not reach it.

    Args:
        home: The folder that the mark names.
        name: The service that the mark names.
        command: Program and arguments.
        environment: Variables to add to this process's environment.
        folder: Working directory.
        log: File for its output, overwritten.

    Returns:
        The process.
    """
    with log.open("wb") as stream:
        return subprocess.Popen(
            command,
            env={**os.environ, **environment, MARK: f"{home}:{name}"},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def marked_processes(home: Path, name: str) -> list[psutil.Process]:
    """Return the processes that carry a service's mark. Those of other users cannot be read and are left out.

    Args:
        home: The folder that the mark names.
        name: The service that the mark names.
    """
    mark, processes = f"{home}:{name}", []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # another user's process, or one that has ended
    return processes


def find_leader(home: Path, name: str) -> psutil.Process | None:
    """Return the process that `start_process` started, its session's leader; None where it has ended.

    Children may remain after its end; `marked_processes` finds them.

    Args:
        home: The folder that the mark names.
        name: The service that the mark names.
    """
    return next((process for process in marked_processes(home, name) if _leads_session(process)), None)


def _leads_session(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def stop_processes(home: Path, name: str) -> bool:
    """End a service's processes with SIGTERM, and with SIGKILL where they outlast STOP_SECONDS.

    Args:
        home: The folder that the mark names.
        name: The service that the mark names.

    Returns:
        Whether there were any.
    """
    processes = marked_processes(home, name)
    for process in processes:
        quietly(process.terminate)
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in {*alive, *marked_processes(home, name)}:
        quietly(process.kill)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return bool(processes)


def is_free(port: int) -> bool:
    """Return whether a service could listen on a port of 127.0.0.1.

    Args:
        port: The port.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

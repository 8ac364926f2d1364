"""The processes of a service: started, known by a mark in their environment, stopped; and the ports they take.

A mark, `EDITLOOP_SERVICE=<home>:<name>`, leaves no moment between a start and a note of it, and a reused pid is never
mistaken for ours, as a pid file would.
"""

import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil

MARK = "EDITLOOP_SERVICE"
STOP_SECONDS = 10


def start_process(
    home: Path, name: str, command: list[str], *, environment: dict[str, str], folder: Path, log: Path
) -> subprocess.Popen[bytes]:
    """Start a marked process in a session of its own, which the terminal's Ctrl-C does not reach.

    Args:
        home: The folder that the mark names.
        name: The service that the mark names.
        command: Program and arguments.
        environment: What is added to this process's environment.
        folder: Its working directory.
        log: The file that its output goes to.
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
    """Processes that carry the service's mark in their environment."""
    mark, processes = f"{home}:{name}", []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue  # another user's, or gone meanwhile: not ours
    return processes


def find_leader(home: Path, name: str) -> psutil.Process | None:
    """The process that was started, its session's leader; None when it is gone, whatever children it left."""
    return next((process for process in marked_processes(home, name) if _leads_session(process)), None)


def _leads_session(process: psutil.Process) -> bool:
    try:
        return os.getsid(process.pid) == process.pid
    except ProcessLookupError:
        return False


def stop_processes(home: Path, name: str) -> bool:
    """End the service's processes, politely first; returns whether there were any."""
    processes = marked_processes(home, name)
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in {*alive, *marked_processes(home, name)}:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return bool(processes)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        pass


def is_free(port: int) -> bool:
    """Whether a service could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

"""Ending child processes, so that none outlives the process that started it."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from pydantic import Field

from editloop.environment import EnvironmentSettings

GRACE_SECONDS = 10.0
"""Seconds that processes get to end by themselves before they are killed."""

WATCH_SECONDS = 0.5
"""Time between two looks at the supervising process."""


class SupervisorSettings(EnvironmentSettings):
    """Which process supervises a step of a local run."""

    supervisor_pid: int | None = Field(None, ge=1)
    """Process id of the local run that started this step. The step ends when that process is gone."""


def stop_tree(process: psutil.Process, grace: float = GRACE_SECONDS) -> None:
    """End a process and all its descendants: SIGTERM first, SIGKILL after `grace` seconds.

    Args:
        process: The root of the tree. One that has already ended is fine.
        grace: Seconds that the processes get to end by themselves.
    """
    try:
        tree = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        quietly(member.terminate)
    for member in psutil.wait_procs(tree, timeout=grace)[1]:
        quietly(member.kill)


def process_identity(pid: int | None = None) -> str:
    """Return what tells a process from all others: its machine, its id, and when it began.

    Args:
        pid: Id of the process; None for this one.

    Raises:
        psutil.NoSuchProcess: It has ended.
    """
    number = os.getpid() if pid is None else pid
    return f"{socket.gethostname()}/{number}/{_beginning(number)}"


def has_ended(identity: str) -> bool:
    """Return whether a process was one of this machine's and is gone. One of another machine may live.

    Args:
        identity: What `process_identity` returned for it.
    """
    host, _, rest = identity.partition("/")
    number = rest.partition("/")[0]
    if host != socket.gethostname() or not number.isdigit():
        return False
    try:
        return process_identity(int(number)) != identity
    except psutil.NoSuchProcess:
        return True


def _beginning(pid: int) -> str:
    """When a process began. On Linux in ticks since the machine's start: a clock that is set changes nothing."""
    if sys.platform != "linux":
        return f"{psutil.Process(pid).create_time():.2f}"
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        raise psutil.NoSuchProcess(pid) from None
    return f"{Path('/proc/sys/kernel/random/boot_id').read_text()[:8]}-{ticks}"


def end_with_supervisor() -> None:
    """Start a thread that ends this step, and the processes it started, as soon as the supervising run is gone.

    A runner that is killed outright cannot stop its steps. Without this watch they would keep writing beside the next
    run. Outside a local run nothing happens.
    """
    pid = SupervisorSettings().supervisor_pid
    if pid is None:
        return

    def watch() -> None:
        quietly(lambda: _wait_for_end(psutil.Process(pid)))
        for child in psutil.Process().children(recursive=True):
            quietly(child.kill)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="supervisor-watch").start()


def _wait_for_end(process: psutil.Process) -> None:
    """Return once a process has ended, also where its own parent has not noticed yet."""
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(WATCH_SECONDS)


def quietly(action: Callable[[], object]) -> None:
    """Call a method of a process that may have ended.

    Args:
        action: The method.
    """
    try:
        action()
    except psutil.NoSuchProcess:
        pass

"""Processes that must not outlive the one that started them."""

import os
import threading
import time
from collections.abc import Callable

import psutil
from pydantic import Field

from editloop.environment import EnvironmentSettings

GRACE_SECONDS = 10.0
"""How long processes may take to end before they are killed."""


class SupervisorSettings(EnvironmentSettings):
    """Which process a step of a local run belongs to."""

    supervisor_pid: int | None = Field(None, ge=1)
    """Set for the steps of a local run: a step ends when this process is gone."""


def stop_tree(process: psutil.Process, grace: float = GRACE_SECONDS) -> None:
    """End a process and all below it: asked first, killed after `grace` seconds."""
    try:
        tree = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        _quietly(member.terminate)
    for member in psutil.wait_procs(tree, timeout=grace)[1]:
        _quietly(member.kill)


def end_with_supervisor() -> None:
    """In a step of a local run: leave, with all started processes, as soon as the run's own process is gone.

    A runner that is killed outright cannot stop its steps; without this they would write on beside the next run.
    """
    pid = SupervisorSettings().supervisor_pid
    if pid is None:
        return

    def watch() -> None:
        while psutil.pid_exists(pid):
            time.sleep(0.5)
        for child in psutil.Process().children(recursive=True):
            _quietly(child.kill)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="supervisor-watch").start()


def _quietly(action: Callable[[], object]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        pass

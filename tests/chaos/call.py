"""One call of `editloop demo` as a process of its own: which stage it is in, and the processes that work for it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from editloop.processes import quietly
from infra.service_processes import marked_processes
from pipelines.catalogue import STAGES

COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"
STAGES_OF_A_TURN = (
    "candidates",
    "annotate",
    "answers",
    "collect",
    "dataset",
    "reward",
    "benchmark",
    "promote",
    "editor_rl",
    "editor_eval",
)
"""The moments of a turn in order: its stages, and the experts' answers between two of them."""
LOOK_SECONDS = 0.05
WORKER = "pipelines.step_worker"
FOLDER_MARK = "EDITLOOP_CHAOS_FOLDER"
"""A variable of a turn's processes by which those that are left are found."""
STOPPED = threading.Event()
"""Set when the chaos run itself is to end: every wait for a call ends."""


class StoppedError(Exception):
    """The chaos run itself is to end."""


class DemoCall:
    """A running call of the demo in its smallest size."""

    def __init__(self, out: Path, log: Path, environment: Mapping[str, str]):
        """Start it.

        Args:
            out: Folder of the demo.
            log: File for what it prints.
            environment: All its variables.
        """
        self.out, self.log = out, log
        log.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.time()
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "demo", "--preset", "smallest", "--out", str(out), "--keep"],
                env=marked(environment, out),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.log.read_text(errors="replace")

    def reaches(self, stage: str, seconds: float) -> bool:
        """Wait until a stage begins; False where the call ends before.

        Args:
            stage: One of STAGES_OF_A_TURN.
            seconds: Most seconds to wait.
        """
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            if self._has_begun(stage):
                return True
            pause(LOOK_SECONDS)
        return False

    def _has_begun(self, stage: str) -> bool:
        if stage == "answers":
            return "✓ collect-preferences" in self.text
        log = self.out / "logs" / f"{STAGES[stage].pipelines[0]}.log"
        if not log.is_file() or log.stat().st_mtime < self._began:
            return False
        return bool(re.search(rf"Executing task '{stage.replace('_', '-')}'", log.read_text(errors="replace")))

    def ends(self, seconds: float) -> int | None:
        """Wait for the end; the exit status, or None where the call still runs.

        Args:
            seconds: Most seconds to wait.
        """
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            pause(LOOK_SECONDS)
        return self.process.poll()

    def interrupt(self) -> None:
        """Press Ctrl-C once, and kill it where it does not end."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes of the steps and ranks that run now, in the order of their start.

        A service that the call started is a fork of the same process, and none of them.
        """
        warm = self.warm_worker()
        if warm is None:
            return []
        try:
            serving = {process.pid for process in self.service_processes("mlflow")}
            workers = [
                child
                for child in warm.children(recursive=True)
                if child.pid not in serving and not serving & {of_child.pid for of_child in child.children()}
            ]
            return sorted(workers, key=psutil.Process.create_time)
        except psutil.NoSuchProcess:
            return []

    def warm_worker(self) -> psutil.Process | None:
        """The process that steps are forked from."""
        try:
            children = psutil.Process(self.process.pid).children()
            return next((child for child in children if WORKER in child.cmdline()), None)
        except psutil.Error:
            return None

    def service_processes(self, name: str) -> list[psutil.Process]:
        """The processes of one of the demo's services: those with its mark, and who listens on its port.

        Args:
            name: Name of the service, as `infra.service_programs` has it.
        """
        marked_ones = marked_processes((self.out / "services").resolve(), name)
        ports = {port for process in marked_ones if (port := _port(process))}
        listening = {
            connection.pid
            for connection in psutil.net_connections("tcp")
            if connection.pid and connection.status == psutil.CONN_LISTEN and connection.laddr.port in ports
        }
        others = listening - {process.pid for process in marked_ones}
        return [*marked_ones, *(psutil.Process(pid) for pid in others if psutil.pid_exists(pid))]


def _port(process: psutil.Process) -> int:
    """The port in a process's command line; 0 where it has none."""
    try:
        words = process.cmdline()
        return int(words[words.index("--port") + 1])
    except (psutil.Error, ValueError, IndexError):
        return 0


def marked(environment: Mapping[str, str], out: Path) -> dict[str, str]:
    """Variables for a process that works in a folder, by which `processes_of` finds it and its children.

    Args:
        environment: All other variables.
        out: The folder.
    """
    return {**environment, FOLDER_MARK: str(out)}


def pause(seconds: float) -> None:
    """Wait.

    Args:
        seconds: How long.

    Raises:
        StoppedError: The chaos run itself is to end.
    """
    if STOPPED.wait(seconds):
        raise StoppedError


def processes_of(out: Path) -> list[psutil.Process]:
    """All processes of this machine that work in a folder: their command, folder or environment names it.

    Args:
        out: The folder.
    """
    found, name = [], str(out)
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            told = [*process.cmdline(), process.cwd(), *process.environ().values()]
        except (psutil.Error, OSError):
            continue
        if any(name in text for text in told):
            found.append(process)
    return found


def end_all(out: Path) -> list[str]:
    """Kill what still works in a folder, and return the commands.

    Args:
        out: The folder.
    """
    left, commands = processes_of(out), list[str]()
    for process in left:
        try:
            commands.append(" ".join(process.cmdline())[:200])
        except psutil.Error:
            continue
        quietly(process.kill)
    psutil.wait_procs(left, timeout=10)
    return commands

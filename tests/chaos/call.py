"""One call of `editloop demo` as a process of its own: which stage it is in, and the processes that work for it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from editloop.processes import quietly
from infra.service_processes import marked_processes
from pipelines.catalogue import STAGES

COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"
SERVICES = ("label-studio", "mlflow")
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


class DemoCall:
    """A running call of the demo in its smallest size."""

    def __init__(self, out: Path, environment: Mapping[str, str] | None = None):
        """Start it.

        Args:
            out: Folder of the demo.
            environment: Variables to add.
        """
        self.out = out
        self.output = out.with_name(f"{out.name}.{time.time_ns()}.log")
        out.parent.mkdir(parents=True, exist_ok=True)
        self._began = time.time()
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "demo", "--preset", "smallest", "--out", str(out), "--keep"],
                env=os.environ | dict(environment or {}),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.output.read_text(errors="replace")

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
            time.sleep(LOOK_SECONDS)
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
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def interrupt(self) -> None:
        """Press Ctrl-C once, and kill it where it does not end."""
        self.process.send_signal(signal.SIGINT)
        if self.ends(60) is None:
            self.process.kill()
            self.process.wait()

    def workers(self) -> list[psutil.Process]:
        """The processes of the steps and ranks that run now, in the order of their start."""
        warm = self.warm_worker()
        if warm is None:
            return []
        try:
            return sorted(warm.children(recursive=True), key=psutil.Process.create_time)
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
        """The processes of one of the demo's services.

        Args:
            name: One of SERVICES.
        """
        return marked_processes((self.out / "services").resolve(), name)


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


def end_all(out: Path) -> int:
    """Kill what still works in a folder, and return how many processes that were.

    Args:
        out: The folder.
    """
    left = processes_of(out)
    for process in left:
        quietly(process.kill)
    psutil.wait_procs(left, timeout=10)
    return len(left)

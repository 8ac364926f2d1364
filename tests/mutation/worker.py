"""A module's tests run against a mutated source, in a forked process: nothing is written into the working tree."""

import ast
import importlib.util
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import pytest

PASSED, FAILED, STOPPED = 0, 1, 2
"""Exit statuses of pytest that say what became of a mutant; a collection that fails is STOPPED."""
NOT_LOADED = 99
"""Exit status of a run whose tests never import the module."""
LEAST_SECONDS = 10.0
"""CPU time that a run has at least: imports take some of it."""
SLOWER = 5.0
"""A run with more than this many times the CPU time of the unmutated tests is taken for an endless loop."""
IDLE_SECONDS = 600
"""Wall-clock limit of a run that waits without computing."""
FORK = get_context("fork")


class Task(NamedTuple):
    """Tests to run against a syntax tree in a module's place."""

    module: str
    """Path below the root: editloop/statistics/mcnemar.py."""
    tree: ast.Module
    tests: tuple[str, ...]
    seconds: float
    """CPU time that the run may take."""


class Outcome(NamedTuple):
    """How a run ended."""

    status: int
    """pytest's exit status; negative: the signal that ended the run."""
    seconds: float
    """CPU time."""
    output: str


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, tree: ast.Module):
        super().__init__(name, path)
        self.tree, self.loaded = tree, False

    def get_code(self, fullname: str) -> Any:
        self.loaded = True
        return compile(self.tree, self.path, "exec")


class _Finder(MetaPathFinder):
    def __init__(self, loader: _Loader):
        self.loader = loader

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.loader.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.loader.path, loader=self.loader)


def run_tasks(root: Path, tasks: Sequence[Task], workers: int, scratch: Path) -> Iterator[tuple[int, Outcome]]:
    """Run tasks, `workers` at a time; yields each one's place in `tasks` and its outcome as it ends.

    Args:
        root: The repository's root; tests and modules are paths below it.
        tasks: What to run.
        workers: Processes at a time.
        scratch: An empty folder for bytecode and for the tests' own files.
    """
    waiting, active = list(enumerate(tasks)), dict[int, tuple[int, Any, Any, float]]()
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                place, task = waiting.pop(0)
                receiver, sender = FORK.Pipe(duplex=False)
                process = FORK.Process(target=_run, args=(root, task, scratch, sender))
                process.start()
                sender.close()
                active[process.sentinel] = (place, process, receiver, time.monotonic())
            for ended in wait(list(active), timeout=1.0):
                place, process, receiver, _ = active.pop(int(ended))  # type: ignore[call-overload]
                yield place, _outcome(process, receiver)
            for _, process, _, began in active.values():
                if time.monotonic() - began > IDLE_SECONDS:
                    process.kill()
    finally:
        for _, process, _, _ in active.values():
            process.kill()


def _outcome(process: Any, receiver: Any) -> Outcome:
    process.join()
    try:
        seconds, output = receiver.recv()
    except EOFError:
        seconds, output = float("nan"), ""
    status = process.exitcode
    process.close()
    return Outcome(status, seconds, output)


def _run(root: Path, task: Task, scratch: Path, sender: Any) -> None:
    """Runs the tests in this forked process and ends it with pytest's exit status."""
    limit = int(task.seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    sys.pycache_prefix = str(scratch / "bytecode")
    loader = _Loader(task.module.removesuffix(".py").replace("/", "."), str(root / task.module), task.tree)
    sys.meta_path.insert(0, _Finder(loader))
    sys.path.insert(0, str(root))
    os.chdir(root)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        output = Path(folder) / "output"
        with output.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            sys.stdout = sys.stderr = file
            # The services' fixtures in tests/conftest.py take longer to import than these tests to run.
            options = ["-x", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--noconftest"]
            status = int(pytest.main([*options, "--basetemp", f"{folder}/files", *task.tests]))
        text = output.read_text(errors="replace")[-3000:]
    sender.send((time.process_time(), text))
    os._exit(status if loader.loaded else NOT_LOADED)

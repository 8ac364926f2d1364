"""A warm worker for local runs: it imports the heavy libraries once, and each step and each rank is a fork of it.

A step of a local run is a process of its own. Importing torch, diffusers, DeepSpeed and MLflow takes each of them up to
eight seconds of a core, many times what most steps of a small loop work. `warm_steps` starts the worker, and the steps
of the block begin with the libraries imported. Where the worker has ended, steps fail to start; nothing else is shared:
a step has its own environment, working folder, output and session.

It needs Linux: elsewhere forking after these imports is not safe, and each step imports for itself.
"""

import gc
import importlib
import io
import json
import os
import random
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from editloop.environment import environment_variables
from editloop.processes import GRACE_SECONDS

CLIENT = Path(__file__).with_name("step_client.py")
MODULES = (
    "kfp.dsl.executor_main",
    "mlflow",
    "editloop.lineage.step",
    "editloop.scoring.opening",
    "editloop.models.editors.opening",
    "editloop.training.engine",
)
"""What most steps import. Together they import all large libraries."""
SOCKET, INTERPRETER = "worker.sock", "python3"
"""Files of the worker's folder: what clients connect to, and what stands in for the interpreter."""
HEADER_BYTES = 8
"""A request begins with its length in so many bytes."""


@contextmanager
def warm_steps(modules: Sequence[str] = MODULES) -> Iterator[None]:
    """Let the steps that kfp.local starts within the block be forks of a warm worker, where the platform allows it.

    kfp.local starts steps with `sys.executable` and torchrun starts ranks with PYTHON_EXEC, so the block replaces both.

    Args:
        modules: What the worker imports.
    """
    if sys.platform != "linux":
        yield
        return
    with tempfile.TemporaryDirectory(prefix="editloop-steps-") as folder:
        address, interpreter = Path(folder) / SOCKET, Path(folder) / INTERPRETER
        client = shlex.join([sys.executable, "-S", "-E", str(CLIENT), str(address)])
        interpreter.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
        interpreter.chmod(0o700)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(address))
            listener.listen()
            worker = subprocess.Popen(
                [sys.executable, "-m", "pipelines.step_worker", str(listener.fileno()), *modules],
                stdin=subprocess.PIPE,  # it closes when this process is gone, and the worker ends
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )
        executable = sys.executable
        sys.executable = str(interpreter)
        try:
            with environment_variables(PYTHON_EXEC=str(interpreter)):
                yield
        finally:
            sys.executable = executable
            with worker:
                worker.kill()


class StepRequest(TypedDict):
    """What a client sends: the call that it stands in for."""

    arguments: list[str]
    """-m, the module and its arguments."""
    environment: dict[str, str]
    folder: str
    """The working folder."""


def serve_steps(listener: socket.socket, modules: Sequence[str]) -> None:
    """Import modules, and fork a step for every client, until the process that started the worker is gone.

    Returns in the steps too, when their module has run.

    Args:
        listener: Socket that clients connect to. They may do so before the imports are done.
        modules: What to import.
    """
    os.environ["_KFP_RUNTIME"] = "true"  # as in a step: kfp imports less
    for name in modules:
        importlib.import_module(name)
    gc.freeze()  # what is imported never becomes garbage: a step that looked through it would copy all of its pages
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are not waited for
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _keep(connection)
            return
        connection.close()
    folder = Path(listener.getsockname()).parent
    with suppress(OSError):  # who made it may have removed it, or have been killed before
        for name in (SOCKET, INTERPRETER):
            (folder / name).unlink()
        folder.rmdir()


def _keep(connection: socket.socket) -> None:
    """Fork a client's step, pass signals on to it, and send its status back. Returns in the step alone.

    Where the client is gone, its step is ended.
    """
    header, files, _, _ = socket.recv_fds(connection, HEADER_BYTES, 3)
    with connection.makefile("rb") as stream:
        request = json.loads(stream.read(int.from_bytes(header)))
    step = os.fork()
    if step == 0:
        connection.close()
        _run(request, files)
        return
    for file in files:
        os.close(file)
    handle = os.pidfd_open(step)
    while handle not in select.select([connection.fileno(), handle], [], [])[0]:
        numbers = connection.recv(16)
        for number in numbers or [signal.SIGTERM]:
            os.kill(step, number)
        if not numbers and not select.select([handle], [], [], GRACE_SECONDS)[0]:
            os.killpg(step, signal.SIGKILL)
        if not numbers:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(step, 0)[1])
    with suppress(OSError):  # the client may be gone by now
        connection.sendall(bytes([status if status >= 0 else 128 - status]))
    os._exit(0)  # without the end of an interpreter, which would tidy up all that was imported


def _run(request: StepRequest, files: list[int]) -> None:
    """Become the client's process, and run its module as `python -m` does. What it raises ends this process."""
    os.setsid()
    for file, standard in zip(files, (0, 1, 2), strict=True):
        os.dup2(file, standard)
        os.close(file)
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, io.TextIOWrapper)
        stream.reconfigure(write_through=True)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    random.seed()  # not the worker's numbers again in every step
    _, module, *arguments = request["arguments"]
    sys.argv, sys.path[0] = [module, *arguments], request["folder"]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    serve_steps(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])

"""Commands of the project, each in a process of its own that is forked from one with the imports.

`editloop stage ...` imports torch, diffusers, MLflow and more for 5 s of CPU before it does anything, `dvc` for 1 s.
`forked_commands` puts programs of the same names into a folder for the PATH. Who calls them (a shell, DVC) gets the
same code with the same command line, environment, working folder, output and exit status. `sys.executable` is such a
program too, so torchrun and the ranks that it starts are forked from there as well.
"""

import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Client, Listener, wait
from pathlib import Path
from typing import NamedTuple

from pipelines.stages import STAGES

MAINS = {"editloop": "pipelines.cli", "dvc": "dvc.cli"}
"""The module whose `main` each command runs."""
PYTHON = "python"
PRELOADED = (
    "dvc.commands.repro",
    "dvc.repo.reproduce",
    "pipelines.cli",
    *(f"components.{stage}.stage" for stage in STAGES),
    "editloop.lineage.editor_registration",
    "editloop.models.editors.opening",
    "editloop.scoring.opening",
    "editloop.models.edit_reward.judge",
    "editloop.lineage.registry",
    "editloop.training.edit_reward.train",
    "editloop.training.editor_rl.train",
    "editloop.training.editor_sft.train",
    "editloop.training.editor_dpo.train",
    "deepspeed.runtime.zero.stage3",
    "mlflow",
    "torch.distributed.run",
    "peft",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "diffusers.pipelines.flux.pipeline_flux_kontext",
)
PROGRAM = """#!{python} -IS
import os, sys
from multiprocessing.connection import Client
with Client({address!r}, "AF_UNIX") as connection:
    connection.send(({name!r}, sys.argv[1:], os.getcwd(), dict(os.environ), os.getpid(), sys.argv[0]))
    sys.exit(connection.recv())
"""


class Call(NamedTuple):
    """A command that somebody called."""

    name: str
    arguments: list[str]
    folder: str
    environment: dict[str, str]
    caller: int
    """Process id of the program, whose output the command writes to."""
    program: str
    """Where the program is."""


@contextmanager
def forked_commands(folder: Path) -> Iterator[None]:
    """Put the programs into a folder; they work until the block ends."""
    with Listener(family="AF_UNIX") as listener:
        address = str(listener.address)
        for name in (*MAINS, PYTHON):
            (folder / name).write_text(PROGRAM.format(python=sys.executable, address=address, name=name))
            (folder / name).chmod(0o755)
        server = threading.Thread(target=_serve, args=(listener,), daemon=True)
        server.start()
        try:
            yield
        finally:
            with Client(address, "AF_UNIX") as connection:
                connection.send(None)
            server.join()


def _serve(listener: Listener) -> None:
    """Answer each call in a thread: `dvc` is still running while its stages are called."""
    while True:
        connection = listener.accept()
        message = connection.recv()
        if message is None:
            connection.close()
            return
        threading.Thread(target=_answer, args=(connection, Call(*message)), daemon=True).start()


def _answer(connection: "multiprocessing.connection.Connection", call: Call) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_run, args=(call,))
    process.start()
    with connection:
        if process.sentinel in wait([process.sentinel, connection]):
            process.join()
            connection.send(process.exitcode)
        else:  # who called was killed
            process.terminate()
            process.join()


def _run(call: Call) -> None:
    os.environ.clear()
    os.environ.update(call.environment)
    os.chdir(call.folder)
    for stream in (1, 2):
        os.dup2(os.open(f"/proc/{call.caller}/fd/{stream}", os.O_WRONLY | os.O_APPEND), stream)
    interpreter, sys.executable = sys.executable, str(Path(call.program).with_name(PYTHON))
    if call.name in MAINS:
        sys.argv = [call.name, *call.arguments]
        sys.exit(import_module(MAINS[call.name]).main())
    arguments = call.arguments[call.arguments[0] == "-u" :]
    if arguments[0] != "-m":
        os.execv(interpreter, [interpreter, *arguments])
    sys.argv = arguments[1:]
    runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)

"""Run a pipeline on this machine with kfp.local: a process per step, and finished steps are kept for a retry.

The runner's cache is keyed by a step's arguments and the addresses and sha256 of its inputs. EditLoop adds the source
code to the key: after a change of the code, all steps run again. It also adds the run's key, so that MLflow has every
step of a run under that key.
"""

import ast
import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from editloop.content import sha256_bytes, sha256_file, sha256_json
from editloop.environment import environment_variables
from editloop.errors import EditLoopError
from editloop.lineage.step import FAILURE_PREFIX
from pipelines.catalogue import read_run_settings
from pipelines.damaged_steps import forget_damaged_steps

LOG = logging.getLogger(__name__)
SOURCE_FOLDERS = ("editloop", "infra", "annotation", "components", "pipelines")
DATA_SUFFIXES = (".css", ".j2", ".json", ".safetensors", ".yaml")
"""Suffixes of files beside the code that decide what a step writes."""
TAIL_LINES = 25
"""Lines of the log in the message of a step that failed with another error than an EditLoopError."""
TRACEBACK = "Traceback (most recent call last)"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
STEP_BEGINS = re.compile(r"Executing task '([\w-]+)'")
TASK_ENDS = " finished with status "
MESSAGE = re.compile(rf"^\s*{re.escape(FAILURE_PREFIX)}")
"""How the reason of a failed step begins."""


def run_local(
    name: str, arguments: dict[str, Any], root: Path, tell: Callable[[str], None] = lambda step: None
) -> None:
    """Run a pipeline to its end.

    Steps that finished in an earlier try with the same arguments are not run again, unless their files were damaged.
    The output of the steps goes to `root`/logs/<pipeline>.log.

    Args:
        name: The pipeline.
        arguments: The pipeline's arguments.
        root: Folder of steps, cache and logs.
        tell: Called with each step's name when it begins.

    Raises:
        EditLoopError: There is no such pipeline, or a step failed. The message is the failed step's own, or the end of
            the log.
    """
    key = str(read_run_settings(arguments.get("settings", "")).get("run_key", ""))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from kfp import local

        from pipelines.building import build_pipeline

        cache = root / "cache" / sha256_json([code_digest(), key])[:16]
        for output in forget_damaged_steps(cache):
            LOG.warning("%s Its step runs again.", output.fault)
        local.init(
            runner=local.SubprocessRunner(use_venv=False),
            pipeline_root=str(root / "steps"),
            workspace_root=str(root / "workspace"),
            enable_caching=True,
            cache_root=str(cache),
        )
        log = root / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            environment_variables(
                EDITLOOP_SUPERVISOR_PID=str(os.getpid()),
                EDITLOOP_PIPELINE_RUN=key or f"{name}-{datetime.now():%Y%m%d-%H%M%S}",
                PYTHONUNBUFFERED="1",
            ),
            log.open("w") as stream,
        ):
            try:
                with contextlib.redirect_stdout(_Log(stream, tell)):
                    build_pipeline(name)(**arguments)
            except RuntimeError as error:
                raise EditLoopError(failure_message(name, str(error), log)) from error


@cache
def code_digest() -> str:
    """Return the sha256 of what a step depends on besides its inputs: code, presets, pages, shipped weights.

    Comments and docstrings do not count: a change of documentation keeps the finished steps.
    """
    top = Path(__file__).parent.parent
    files = sorted(path for folder in SOURCE_FOLDERS for path in (top / folder).rglob("*"))
    digests = {path: source_digest(path.read_text()) for path in files if path.suffix == ".py"}
    digests |= {path: sha256_file(path) for path in files if path.suffix in DATA_SUFFIXES}
    return sha256_json({path.relative_to(top).as_posix(): digest for path, digest in digests.items()})


def source_digest(text: str) -> str:
    """Return the sha256 of a Python source's syntax tree, without comments, docstrings and strings below fields.

    Args:
        text: The source.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [statement for statement in body if not _is_documentation(statement)]
    return sha256_bytes(ast.dump(tree).encode())


def _is_documentation(statement: ast.stmt) -> bool:
    """Whether a statement is a string that stands alone."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


class _Log(io.TextIOBase):
    """A log file that reports the beginning of each step."""

    def __init__(self, stream: Any, hear: Callable[[str], None]):
        self.stream, self.hear = stream, hear

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        plain = COLOUR.sub("", text)
        self.stream.write(plain)
        self.stream.flush()
        for step in STEP_BEGINS.findall(plain):
            self.hear(step.replace("-", "_"))
        return len(text)


def failure_message(name: str, error: str, log: Path) -> str:
    """Return the message for the user: the step's EditLoopError if it raised one, else the end of the log.

    A step that printed no error was killed, and its log says nothing of that.

    Args:
        name: The pipeline.
        error: What kfp.local says of it.
        log: The run's log.
    """
    step = re.search(r"Inner task failed: '?([\w-]+)", COLOUR.sub("", error))
    lines = [line.removeprefix("    ").rstrip() for line in log.read_text(errors="replace").splitlines()]
    errors = [number for number, line in enumerate(lines) if MESSAGE.match(line)]
    if errors:
        end = next((number for number in range(errors[-1], len(lines)) if TASK_ENDS in lines[number]), len(lines))
        reason = "\n".join([MESSAGE.sub("", lines[errors[-1]]), *lines[errors[-1] + 1 : end]]).strip()
    elif not any(TRACEBACK in line for line in lines):
        reason = "it ended without a word, as a process that was killed, or that memory ran out for. Run it again."
    else:
        reason = "\n" + "\n".join(line for line in lines[-TAIL_LINES:] if line)
    return f"{name}, step {step[1] if step else 'unknown'}: {reason}\nThe whole log is {log}; finished steps are kept."

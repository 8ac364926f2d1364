"""Calls of the command line in the test's own process, where PyTorch is imported already."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from pipelines.cli import main


class Ended(NamedTuple):
    """How a call of the command line ended."""

    returncode: int
    stdout: str
    stderr: str


EditLoop = Callable[..., Ended]
"""editloop(*arguments, **environment) calls `editloop ARGUMENTS` with further environment variables."""


def command_line(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> EditLoop:
    """The caller that keeps what a call prints by `capfd`."""

    def call(*arguments: str, **environment: str) -> Ended:
        with monkeypatch.context() as patched:
            for name, value in environment.items():
                patched.setenv(name, value)
            patched.setattr(sys, "argv", ["editloop", *arguments])
            capfd.readouterr()
            try:
                status = main() or 0
            except SystemExit as ending:
                status = int(ending.code or 0)
            return Ended(status, *capfd.readouterr())

    return call

"""A process is told from all others, also where its number is used again."""

import os
import socket
import subprocess

import psutil
import pytest

from editloop.processes import has_ended, process_identity


def test_a_process_has_ended_once_it_is_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        identity = process_identity(process.pid)
        assert not has_ended(identity)
        process.kill()
    assert has_ended(identity)
    with pytest.raises(psutil.NoSuchProcess):
        process_identity(process.pid)


def test_a_number_that_is_used_again_is_another_process() -> None:
    machine, number, beginning = process_identity().split("/")
    assert (machine, number) == (socket.gethostname(), str(os.getpid()))
    assert has_ended(f"{machine}/{number}/{beginning}0")
    assert not has_ended(f"{machine}/{number}/{beginning}")


def test_a_process_of_another_machine_may_live() -> None:
    assert not has_ended("elsewhere/1/1")
    assert not has_ended("")

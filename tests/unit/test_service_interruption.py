"""Whichever way a call that starts services is ended, nothing that it started runs on."""

import signal
import subprocess
import sys
import time

import pytest

from editloop.interruption import defer_signals, interrupt_on_termination
from tests.stub_service import marked, write_label_studio

STUBBORN = """
signal.signal(signal.SIGTERM, lambda number, frame: pathlib.Path({noted!r}).touch())
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path({started!r}).touch()
while True:
    time.sleep(1)
"""
CALL = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
from infra import service_processes
from infra.services import start_services
service_processes.STOP_SECONDS = 1
start_services(Path(sys.argv[1]), mlflow=False)
"""


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """No ending is ignored, as SIGHUP is below `nohup` and SIGINT in a script's background."""
    before = {
        number: signal.signal(number, handler)
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGHUP, signal.SIG_DFL),
        )
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def wait_for(path):
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_no_ending_and_no_second_one_leaves_a_service(ending, tmp_path, monkeypatch):
    noted, started, home = tmp_path / "noted", tmp_path / "started", tmp_path / "home"
    body = STUBBORN.format(noted=str(noted), started=str(started))
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_COMMAND", str(write_label_studio(tmp_path / "label-studio", body)))
    with subprocess.Popen([sys.executable, "-c", CALL, str(home)], stderr=subprocess.DEVNULL) as call:
        try:
            wait_for(started)
            call.send_signal(ending)
            wait_for(noted)
            call.send_signal(ending)
            assert call.wait(60) != 0
            assert marked(home) == []
        finally:
            call.kill()
            for process in marked(home):
                process.kill()


def test_a_migration_that_is_interrupted_ends_and_leaves_the_folder_as_new(tmp_path, monkeypatch):
    home = tmp_path / "home"
    program = write_label_studio(tmp_path / "label-studio", "", version="migrate()\ntime.sleep(60)")
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_COMMAND", str(program))
    with subprocess.Popen([sys.executable, "-c", CALL, str(home)], stderr=subprocess.DEVNULL) as call:
        wait_for(home / ".label-studio.new" / "work" / "label_studio.sqlite3")
        call.send_signal(signal.SIGTERM)
        assert call.wait(60) != 0
    assert marked(home) == []
    assert not (home / "label-studio").exists()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_every_ending_is_an_interrupt(ending):
    before = signal.getsignal(ending)
    with pytest.raises(KeyboardInterrupt), interrupt_on_termination():
        signal.raise_signal(ending)
    assert signal.getsignal(ending) == before


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt_on_termination(), defer_signals():
            signal.raise_signal(signal.SIGHUP)
    except KeyboardInterrupt:
        pytest.fail("a signal that is ignored has interrupted")
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_ending_waits_for_the_block(ending):
    done = []

    def undo():
        with defer_signals():
            signal.raise_signal(ending)
            signal.raise_signal(ending)
            done.append("all of it")

    with interrupt_on_termination(), pytest.raises(KeyboardInterrupt):
        undo()
    assert done == ["all of it"]


def test_an_error_in_the_block_is_not_lost():
    with pytest.raises(ValueError, match="the cause"), defer_signals():
        raise ValueError("the cause")

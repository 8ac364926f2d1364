"""What programs show of EditLoop's messages, and that a library's user hears nothing."""

import os
import subprocess
import sys

import pytest

CALL = """
import logging
import editloop
{setup}
log = logging.getLogger("editloop.training.loop")
log.debug("details")
log.info("step 1/9: [loss] 0.5 " + "x" * 100)
log.warning("MLflow does not answer")
"""
LONG = "step 1/9: [loss] 0.5 " + "x" * 100
SETUP = "from editloop.logs import log_to_stderr; log_to_stderr(); log_to_stderr({options})"


def shown(setup: str, **environment: str) -> list[str]:
    call = CALL.format(setup=setup)
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_a_library_is_silent() -> None:
    assert shown("") == []


def test_a_program_shows_each_message_once_on_one_line() -> None:
    assert shown(SETUP.format(options="")) == [LONG, "MLflow does not answer"]


@pytest.mark.parametrize(
    ("level", "lines"), [("WARNING", ["MLflow does not answer"]), ("ERROR", []), ("", [LONG, "MLflow does not answer"])]
)
def test_the_level_is_a_setting(level: str, lines: list[str]) -> None:
    assert shown(SETUP.format(options=""), EDITLOOP_LOG_LEVEL=level) == lines


def test_debug_shows_when_and_where() -> None:
    first, *_ = lines = shown(SETUP.format(options=""), EDITLOOP_LOG_LEVEL="DEBUG")
    assert len(lines) == 3
    assert first.endswith(" DEBUG editloop.training.loop: details")


def test_a_servers_messages_have_the_time() -> None:
    *_, last = shown(SETUP.format(options="with_time=True"))
    assert last.endswith(" WARNING MLflow does not answer")


def test_a_wrong_level_is_told_by_the_command_line() -> None:
    call = "import sys; from pipelines.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", call, "--version"],
        capture_output=True,
        text=True,
        env={**os.environ, "EDITLOOP_LOG_LEVEL": "LOUD"},
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("editloop: EDITLOOP_LOG_LEVEL=LOUD")

"""Starting what does not start: one line for the user, nothing left running. The real services: tests/integration."""

import os
import socket
import subprocess
import sys
import time

import pytest

from editloop.errors import EditLoopError
from infra.doctor import check_machine
from infra.service_processes import MARK
from infra.services import services_status, start_services, stop_services
from infra.settings import service_settings
from tests.stub_service import marked, write_label_studio

LABEL_STUDIO = {"label_studio": True, "mlflow": False}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Makes a Python script be the `label-studio` program."""

    def make(body):
        monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_COMMAND", str(write_label_studio(tmp_path / "label-studio", body)))

    return make


def test_a_service_that_ends_is_told_in_a_line(program, tmp_path):
    program("print('first line'); raise SystemExit('the database is from the future')")
    with pytest.raises(EditLoopError, match=r"label-studio ended while starting: .*from the future") as error:
        start_services(tmp_path / "home", **LABEL_STUDIO)
    assert "\n" not in str(error.value)
    assert marked(tmp_path) == []


def test_a_service_that_never_answers_is_stopped_with_its_children(program, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_START_SECONDS", "1.5")
    program(
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "time.sleep(60)"
    )
    with pytest.raises(EditLoopError, match="did not answer within"):
        start_services(tmp_path / "home", **LABEL_STUDIO)
    assert marked(tmp_path) == []


ANSWERS = """
import http.server

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()

http.server.HTTPServer(("127.0.0.1", int(sys.argv[-1])), Answer).serve_forever()
"""


def test_a_service_whose_start_a_killed_call_did_not_see_to_its_end_is_somebodys_from_its_use_on(program, tmp_path):
    home = tmp_path / "home"
    program(ANSWERS)
    try:
        service = start_services(home, **LABEL_STUDIO).label_studio
        service.ready.unlink()  # as a call that was killed just before leaves it
        assert start_services(home, **LABEL_STUDIO).label_studio == service
        assert service.ready.exists()
    finally:
        assert stop_services(home) == ["label-studio"]
    assert marked(home) == []


def test_a_port_in_use_is_told_before_anything_starts(program, tmp_path, monkeypatch):
    program(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_PORT", str(port))
        with pytest.raises(EditLoopError, match=f"Port {port} is in use.*EDITLOOP_LABEL_STUDIO_PORT"):
            start_services(tmp_path / "home", **LABEL_STUDIO)
    assert not (tmp_path / "ran").exists()


def test_what_carries_our_mark_is_ended_and_nothing_else(tmp_path):
    home = tmp_path / "home"  # its folder was removed while the service ran
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"],
        env={**os.environ, MARK: f"{home}:label-studio"},
        start_new_session=True,
    )
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        deadline = time.monotonic() + 10
        while not marked(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stop_services(home) == ["label-studio"]
        assert marked(tmp_path) == []
        orphan.wait(5)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        orphan.kill()


def test_a_home_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EditLoopError, match="services cannot keep their data there"):
        start_services(tmp_path / "file" / "home", **LABEL_STUDIO)


def test_nothing_started_nothing_to_stop(tmp_path):
    assert stop_services(tmp_path / "never") == []
    assert services_status(tmp_path / "never") == []
    assert not (tmp_path / "never").exists()
    assert {check.name for check in check_machine(tmp_path / "never")} >= {
        "python",
        "git",
        "dvc",
        "label-studio",
        "disk",
    }


def test_a_missing_setting_names_itself_and_the_way_out(monkeypatch):
    monkeypatch.delenv("EDITLOOP_LABEL_STUDIO_TOKEN", raising=False)
    with pytest.raises(EditLoopError, match=r"EDITLOOP_LABEL_STUDIO_TOKEN is not set.*editloop up"):
        service_settings().require("label_studio_token")
    monkeypatch.setenv("EDITLOOP_LABEL_STUDIO_TOKEN", "a-secret")
    assert service_settings().require("label_studio_token") == "a-secret"
    assert "a-secret" not in repr(service_settings())


def test_a_setting_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_MLFLOW_PORT", "eighty")
    with pytest.raises(EditLoopError, match="EDITLOOP_MLFLOW_PORT"):
        start_services(tmp_path / "home")

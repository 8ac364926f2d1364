"""Real services survive what happens to a demo: a second call, a killed server, a killed caller."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest
import requests

from infra.service_watch import watched_services
from infra.services import services_status, start_services, stop_services
from pipelines.cli import up_command

COMMAND = """
import signal, sys
from pipelines.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
FIRST_START = """
import sys
from pathlib import Path
from infra.services import start_services
start_services(Path(sys.argv[1]), label_studio=False)
"""


LOG_IN = r"^# (.*): (http\S+), log in as (\S+), password (\S+)$"


def pids(home):
    return {status.service.name: status.pid for status in services_status(home) if status.state == "running"}


def test_a_second_call_uses_what_runs(services):
    before = pids(services.home)
    assert set(before) == {"label-studio", "mlflow"}
    again = start_services(services.home)
    assert again.environment == services.environment
    assert pids(services.home) == before


def test_secrets_are_the_users_alone_and_not_on_a_command_line(services):
    for name in (".", "credentials.json", "mlflow-auth.ini", "signing-key.pem"):
        assert (services.home / name).stat().st_mode & 0o077 == 0
    secrets = [services.label_studio.secret, services.label_studio.password, services.mlflow.secret]
    for pid in pids(services.home).values():
        assert not any(secret in " ".join(psutil.Process(pid).cmdline()) for secret in secrets)


def test_both_ask_for_credentials(services):
    assert requests.get(f"{services.label_studio.url}/api/projects/", timeout=30).status_code == 401
    assert (
        requests.get(f"{services.mlflow.url}/api/2.0/mlflow/experiments/search?max_results=1", timeout=30).status_code
        == 401
    )


def test_people_log_in_with_exactly_what_is_printed(services, monkeypatch, capsys):
    monkeypatch.setattr("infra.services.start_services", lambda home: services)
    up_command(services.home.parent)
    printed = capsys.readouterr().out
    found = {title: rest for title, *rest in re.findall(LOG_IN, printed, re.MULTILINE)}
    assert set(found) == {"Label Studio", "MLflow"}
    kept = json.loads((services.home / "credentials.json").read_text())
    for title, name in (("Label Studio", "label-studio"), ("MLflow", "mlflow")):
        assert found[title][1:] == [kept[name]["user"], kept[name]["password"]]
    url, user, password = found["MLflow"]
    query = f"{url}/api/2.0/mlflow/experiments/search?max_results=1"
    assert requests.get(query, auth=(user, password), timeout=30).status_code == 200
    assert requests.get(query, auth=(user, f"{password}x"), timeout=30).status_code == 401
    url, user, password = found["Label Studio"]
    session = requests.Session()
    token = re.search(r'csrfmiddlewaretoken" value="([^"]+)"', session.get(f"{url}/user/login/", timeout=30).text)[1]
    form = {"csrfmiddlewaretoken": token, "email": user, "password": password}
    session.post(f"{url}/user/login/", data=form, headers={"Referer": f"{url}/user/login/"}, timeout=30)
    assert session.get(f"{url}/api/current-user/whoami", timeout=30).json()["email"] == user
    assert all(line.startswith(("export ", "# ")) for line in printed.splitlines()), 'eval "$(editloop up)"'


def test_nothing_serves_beyond_this_machine(services):
    for pid in pids(services.home).values():
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip == "127.0.0.1"


def test_a_killed_server_comes_back_with_its_data_and_no_orphan(tmp_path):
    home = tmp_path / "home"
    try:
        first = start_services(home, label_studio=False)
        url, auth = first.mlflow.url, (first.mlflow.user, first.mlflow.secret)
        made = requests.post(
            f"{url}/api/2.0/mlflow/experiments/create", json={"name": "kept"}, auth=auth, timeout=30
        ).json()["experiment_id"]
        leader = pids(home)["mlflow"]
        left = psutil.Process(leader).children(recursive=True)
        killed = psutil.Process(leader)
        os.kill(leader, signal.SIGKILL)
        psutil.wait_procs([killed], timeout=10)
        assert any(child.is_running() for child in left), "the server leaves its worker behind"
        second = start_services(home, label_studio=False)
        _, alive = psutil.wait_procs(left, timeout=10)
        assert not alive
        reply = requests.get(
            f"{second.mlflow.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=kept", auth=auth, timeout=30
        )
        assert reply.json()["experiment"]["experiment_id"] == made
    finally:
        stop_services(home)
    assert pids(home) == {}


def test_a_token_that_was_reset_is_read_anew(tmp_path):
    """As a person resets it on the page Account & Settings."""
    home = tmp_path / "home"

    def accepted(token):
        headers = {"Authorization": f"Token {token}"}
        return requests.get(f"{first.label_studio.url}/api/current-user/whoami", headers=headers, timeout=30).ok

    try:
        first = start_services(home, mlflow=False)
        before = pids(home)
        old = {"Authorization": f"Token {first.label_studio.secret}"}
        reset = requests.post(f"{first.label_studio.url}/api/current-user/reset-token/", headers=old, timeout=30)
        assert reset.status_code == 201
        assert not accepted(first.label_studio.secret)
        second = start_services(home, mlflow=False)
        assert pids(home) == before, "it was not restarted"
        assert second.label_studio.secret == reset.json()["token"]
        assert accepted(start_services(home, mlflow=False).label_studio.secret)
    finally:
        stop_services(home)


def test_a_server_that_is_killed_while_it_is_watched_comes_back_at_its_address(tmp_path, monkeypatch):
    monkeypatch.setattr("infra.service_watch.start_services", partial(start_services, label_studio=False))
    monkeypatch.setattr("infra.service_watch.NAMES", ("mlflow",))
    home, told = tmp_path / "home", []
    try:
        service = start_services(home, label_studio=False).mlflow
        with watched_services(home, told.append):
            before = pids(home)["mlflow"]
            os.kill(before, signal.SIGKILL)
            deadline = time.monotonic() + 120
            while not told:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert service.healthy()
            assert pids(home)["mlflow"] != before
        assert told == ["mlflow had ended: started again"]
    finally:
        stop_services(home)
    time.sleep(3)
    assert pids(home) == {}, "nobody watches any more"


def test_ctrl_c_twice_stops_all_that_a_command_started(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = tmp_path / "services"
    home.mkdir()
    arguments = ["reconcile", "--out", str(tmp_path)]
    with subprocess.Popen([sys.executable, "-c", COMMAND, *arguments], stderr=subprocess.DEVNULL) as command:
        try:
            wait_until(lambda: set(pids(home)) == {"label-studio", "mlflow"}, command)
            command.send_signal(signal.SIGINT)
            wait_until(lambda: "label-studio" not in pids(home), command)
            command.send_signal(signal.SIGINT)
            assert command.wait(60) != 0
            assert [status.state for status in services_status(home)] == ["stopped", "stopped"]
        finally:
            command.kill()
            stop_services(home)


def wait_until(condition, command):
    deadline = time.monotonic() + 240
    while not condition():
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.extended("the same fault eight times; test_service_databases.py kills a migration once")
def test_a_first_start_may_be_killed_at_any_time(tmp_path, monkeypatch):
    monkeypatch.setenv("EDITLOOP_SERVICE_TEMPLATES", str(tmp_path / "templates"))
    home = tmp_path / "home"
    try:
        for seconds in (1, 2, 4, 6, 8, 10, 12, 16):
            with subprocess.Popen([sys.executable, "-c", FIRST_START, str(home)]) as call:
                time.sleep(seconds)
                call.kill()
        assert start_services(home, label_studio=False).mlflow.healthy()
    finally:
        stop_services(home)

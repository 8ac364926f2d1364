"""What MLflow's client raises is one line with the cure: the real client, against servers that answer oddly.

tests/integration/test_reconcile.py deletes experiments and runs of a real server.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.mlflow_errors import mlflow_errors_in_one_line, translate_error
from editloop.lineage.step import end_in_one_line


@contextmanager
def answering(status: int, body: str) -> Iterator[str]:
    """The address of a server that answers everything with one status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "meaning"),
    [
        (404, "<!doctype html>", "what answers there is no MLflow. Correct MLFLOW_TRACKING_URI."),
        (200, "<html>", "what answers there is no MLflow. Correct MLFLOW_TRACKING_URI."),
        (401, "You are not authenticated", "refuses the log-in: correct MLFLOW_TRACKING_USERNAME"),
        (403, "Permission denied", "does not allow this to ada"),
        (
            404,
            '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Run with id=1 not found"}',
            "does not have it: Run",
        ),
        (
            400,
            '{"error_code": "INVALID_PARAMETER_VALUE", "message": "odd\\nvalue"}',
            "refuses: odd value (INVALID_PARA",
        ),
        (
            400,
            '{"error_code": "INVALID_PARAMETER_VALUE", "message": "The run 1a must be in the \'active\' state."}',
            "the run 1a was deleted. Restore it: `mlflow runs restore --run-id 1a`.",
        ),
    ],
)
def test_an_answer_of_the_server_is_one_line(
    monkeypatch: pytest.MonkeyPatch, status: int, body: str, meaning: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "secret")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with answering(status, body) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        with pytest.raises(EditLoopError) as raised, mlflow_errors_in_one_line():
            tracking.client().get_run("1a")
    assert str(raised.value).startswith(f"MLflow at {address}")
    assert meaning in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_away_is_told_by_a_step_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ada:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(SystemExit, match=r"MLflow at http://\*\*\*@127.0.0.1:9 does not answer\. Start it"),
        end_in_one_line(),
    ):
        tracking.client().get_run("1a")
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError("odd"), EditLoopError("told"), KeyError("x")])
def test_what_is_not_mlflows_stays_as_it_is(error: Exception) -> None:
    assert translate_error(error) is None

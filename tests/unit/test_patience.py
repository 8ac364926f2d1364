"""Waiting for MLflow: for what, how long, and for what not."""

import pytest
import requests
from mlflow.exceptions import MlflowException

from editloop import retry
from editloop.lineage.retries import is_unreachable, retry_while_unreachable


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry.PATIENT_WAIT, "multiplier", 0.001)


def wrapped(cause: Exception) -> MlflowException:
    """What MLflow's client makes of an error of the connection: without `from`."""
    try:
        try:
            raise cause
        except Exception as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904
    except MlflowException as error:
        return error


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (wrapped(requests.ConnectionError("refused")), True),
        (wrapped(requests.ReadTimeout("120 s")), True),
        (wrapped(requests.exceptions.ChunkedEncodingError("the answer broke off")), True),
        (wrapped(requests.exceptions.RetryError("too many 503 error responses")), True),
        (wrapped(requests.exceptions.RetryError("too many 500 error responses")), False),
        (MlflowException("no such run"), False),
        (OSError("disk"), False),
    ],
)
def test_only_a_server_that_is_not_reached_is_away(error: Exception, away: bool) -> None:
    assert is_unreachable(error) is away


def test_a_call_is_tried_until_the_server_is_back(caplog: pytest.LogCaptureFixture) -> None:
    left = [requests.ConnectionError("refused"), requests.ConnectionError("refused")]

    def call(value: int) -> int:
        if left:
            raise left.pop()
        return value

    caplog.set_level("INFO", "editloop")
    assert retry_while_unreachable(call, 3) == 3
    first, last = caplog.messages
    assert "EDITLOOP_MLFLOW_PATIENCE" in first
    assert last == "MLflow answers again"


def test_patience_ends_and_other_errors_are_raised_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def refused() -> None:
        calls.append(1)
        raise requests.ConnectionError("refused")

    def broken() -> None:
        calls.append(1)
        raise ValueError("a fault of ours")

    monkeypatch.setenv("EDITLOOP_MLFLOW_PATIENCE", "0")
    with pytest.raises(requests.ConnectionError):
        retry_while_unreachable(refused)
    monkeypatch.setenv("EDITLOOP_MLFLOW_PATIENCE", "60")
    with pytest.raises(ValueError, match="ours"):
        retry_while_unreachable(broken)
    assert len(calls) == 2

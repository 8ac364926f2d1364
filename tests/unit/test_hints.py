"""Hints of webhooks: who may send them, and that a burst makes one pass."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.webhooks.delivery import _generate_hmac_signature
from typer.testing import CliRunner

from editloop.errors import EditLoopError
from pipelines import hints
from pipelines.cli import app
from pipelines.hints import HintQueue, listen_for_hints, make_hint_app
from pipelines.reconcile_settings import ReconcilePolicy, read_policy

SECRET = "a long secret"
BODY = '{"entity": "model_version_alias"}'


class Queue(HintQueue):
    """Counts the hints."""

    count = 0

    def add(self) -> None:
        super().add()
        self.count += 1


@pytest.fixture
def queue() -> Queue:
    return Queue(60, settle_seconds=0.1)


@pytest.fixture
def client(queue: Queue) -> TestClient:
    return TestClient(make_hint_app(queue, SECRET))


def signed(secret: str, body: str = BODY, seconds_ago: float = 0) -> dict[str, str]:
    """As MLflow's own webhooks are."""
    sent_at = str(int(time.time() - seconds_ago))
    signature = _generate_hmac_signature(secret, "id-1", sent_at, body)
    return {"X-MLflow-Delivery-Id": "id-1", "X-MLflow-Timestamp": sent_at, "X-MLflow-Signature": signature}


@pytest.mark.parametrize("headers", [lambda: {"Authorization": f"Bearer {SECRET}"}, lambda: signed(SECRET)])
def test_who_knows_the_secret_may_hint(client: TestClient, queue: Queue, headers: Callable[[], dict[str, str]]) -> None:
    assert client.post("/hint", content=BODY, headers=headers()).status_code == 202
    assert queue.count == 1


@pytest.mark.parametrize(
    "headers",
    [
        lambda: {},
        lambda: {"Authorization": "Bearer another"},
        lambda: {"Authorization": SECRET},
        lambda: {"Authorization": f"Basic {SECRET}"},
        lambda: signed("another"),
        lambda: signed(SECRET, "another body"),
        lambda: signed(SECRET, seconds_ago=3600),
        lambda: signed(SECRET, seconds_ago=-3600),
        lambda: signed(SECRET) | {"X-MLflow-Timestamp": "1700000000"},
        lambda: signed(SECRET) | {"X-MLflow-Timestamp": "1" * 13},
        lambda: signed(SECRET) | {"X-MLflow-Timestamp": ""},
    ],
)
def test_nobody_else_may(client: TestClient, queue: Queue, headers: Callable[[], dict[str, str]]) -> None:
    assert client.post("/hint", content=BODY, headers=headers()).status_code == 401
    assert queue.count == 0


def test_any_headers_and_body_without_the_secret_are_refused(client: TestClient, queue: Queue) -> None:
    values = st.one_of(
        st.binary(max_size=30).map(lambda value: bytes(byte for byte in value if byte not in b"\r\n\0")),
        st.sampled_from([b"Bearer", b"bearer  ", b"Bearer \xe9", b"v1,", b"%d" % time.time(), b"-1", b"1e9", b"\xb2"]),
    )
    names = st.sampled_from([*(name.lower().encode() for name in signed(SECRET)), b"authorization"])

    @settings(max_examples=100, derandomize=True, database=None)
    @given(st.dictionaries(names, values), st.binary(max_size=40))
    def holds(headers: dict[bytes, bytes], body: bytes) -> None:
        assert client.post("/hint", content=body, headers=list(headers.items())).status_code == 401

    holds()
    assert queue.count == 0


def test_a_large_body_is_not_read(client: TestClient, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "LONGEST_BODY", len(BODY) - 1)
    assert client.post("/hint", content=BODY, headers=signed(SECRET)).status_code == 401
    assert client.post("/hint", content=BODY, headers={"Authorization": f"Bearer {SECRET}"}).status_code == 202


def connect(url: str) -> socket.socket:
    """A connection to the endpoint, which begins to listen a moment after its address is known."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    for _ in range(100):
        with suppress(ConnectionRefusedError):
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        time.sleep(0.1)
    raise AssertionError(f"{url} does not listen")


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (b"POST /hint HTTP/1.1\r\nHost: x\r\nX-", b""),
        (
            b"POST /hint HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nX-MLflow-Signature: v1,x\r\n"
            b"X-MLflow-Timestamp: %d\r\n\r\nhalf" % time.time(),
            b"HTTP/1.1 401",
        ),
    ],
    ids=["half-sent headers", "half a body"],
)
def test_a_slow_sender_holds_no_connection(
    sent: bytes, answer: bytes, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hints, "RECEIVE_SECONDS", 0.5)
    with listen_for_hints("127.0.0.1:0", queue, SECRET) as url, connect(url) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(answer)
    assert queue.count == 0


def test_no_address_takes_all_connections(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hints, "CONNECTIONS", 4)
    with listen_for_hints("127.0.0.1:0", queue, SECRET) as url, ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(connect(url))
        time.sleep(0.5)
        third = stack.enter_context(connect(url))
        assert third.recv(1000).startswith(b"HTTP/1.1 429")


def test_a_burst_makes_one_pass_and_a_hint_during_a_pass_makes_another() -> None:
    queue = HintQueue(1.0, settle_seconds=0.1)

    def seconds_until_due() -> float:
        began = time.monotonic()
        queue.wait()
        return time.monotonic() - began

    for _ in range(50):
        queue.add()
    threading.Timer(0.05, queue.add).start()  # within the pause
    assert seconds_until_due() < 0.5
    queue.add()  # while the pass is made
    assert seconds_until_due() < 0.5
    assert seconds_until_due() >= 1.0, "no hint is left: the schedule's pass"


def test_health_tells_of_a_pass_that_does_not_end(
    client: TestClient, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/healthz").status_code == 200
    monkeypatch.setattr(hints, "STUCK_SECONDS", -60.0)
    assert client.get("/healthz").status_code == 503


@pytest.mark.parametrize("address", ["8421", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", "nowhere.invalid:8421"])
def test_an_address_that_is_none_is_refused(queue: Queue, address: str) -> None:
    with pytest.raises(EditLoopError, match=f"--listen {address}: "), listen_for_hints(address, queue, SECRET):
        pytest.fail("it listens")


def test_listening_needs_a_secret_and_more_than_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITLOOP_HINT_SECRET", raising=False)
    for words, reason in (([], "EDITLOOP_HINT_SECRET is not set"), (["--once"], "takes no hints")):
        called = CliRunner().invoke(app, ["reconcile", "--listen", "127.0.0.1:0", *words])
        assert isinstance(called.exception, EditLoopError)
        assert reason in str(called.exception)


def test_the_shipped_policy_is_the_default_and_a_misspelt_key_is_told(tmp_path: Path) -> None:
    assert read_policy("default") == ReconcilePolicy()
    (tmp_path / "ours.yaml").write_text("{next_campain: start}")
    with pytest.raises(EditLoopError, match="did you mean next_campaign"):
        read_policy(str(tmp_path / "ours.yaml"))
    with pytest.raises(EditLoopError, match=r"policy 'defualt': no such file or name; .*Did you mean default"):
        read_policy("defualt")

"""The API's patience, against a small server that is away, refuses, or answers."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from pydantic import SecretStr

from annotation.campaigns import label_studio
from annotation.campaigns.label_studio import LabelStudioApi
from editloop.errors import EditLoopError
from infra.settings import ServiceSettings


class Script(HTTPServer):
    """A server that answers with `statuses` in turn, the last one again and again."""

    statuses: list[int]
    heard: list[tuple[str, str, str | None]]


class Answering(BaseHTTPRequestHandler):
    server: Script

    def do_GET(self) -> None:
        self.server.heard.append((self.command, self.path, self.headers.get("Authorization")))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(b'{"said": "yes"}' if status == 200 else b"wrong, sorry")

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Script]:
    found = Script(("127.0.0.1", 0), Answering)
    found.statuses, found.heard = [200], []
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


@pytest.fixture
def api(server: Script, monkeypatch: pytest.MonkeyPatch) -> LabelStudioApi:
    monkeypatch.setattr(label_studio, "AWAY_SECONDS", 2)
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    return LabelStudioApi(ServiceSettings(label_studio_url=address, label_studio_token=SecretStr("a-secret")))


def test_a_server_that_is_away_is_waited_for(server: Script, api: LabelStudioApi) -> None:
    server.statuses = [503, 502, 504, 200]
    assert api.call("POST", "/api/things", json={}) == {"said": "yes"}
    assert server.heard == [("POST", "/api/things", "Token a-secret")] * 4


def test_one_that_stays_away_is_told_with_the_next_step(server: Script, api: LabelStudioApi) -> None:
    server.statuses = [503]
    with pytest.raises(EditLoopError, match=r"away for 2 s \(HTTPStatusError\).*same call again"):
        api.call("GET", "/api/things")
    assert len(server.heard) > 2


@pytest.mark.parametrize(("status", "words"), [(401, "refuses the token"), (403, "refuses the token"), (400, "sorry")])
def test_a_refusal_is_told_at_once_without_the_token(
    server: Script, api: LabelStudioApi, status: int, words: str
) -> None:
    server.statuses = [status]
    with pytest.raises(EditLoopError, match=words) as told:
        api.call("GET", "/api/things")
    assert len(server.heard) == 1
    assert "a-secret" not in str(told.value)


def test_results_come_in_the_order_of_the_items(api: LabelStudioApi) -> None:
    wait = threading.Barrier(2, timeout=10)

    def work(item: int) -> int:
        if item < 2:
            wait.wait()  # two at least at once
        return -item

    assert list(api.each(work, range(6))) == [0, -1, -2, -3, -4, -5]

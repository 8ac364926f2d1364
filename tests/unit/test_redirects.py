"""Servers that send a client elsewhere: no token goes along, and a judge is not looked for where it is sent."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from annotation.campaigns.label_studio import LabelStudioApi
from editloop.errors import EditLoopError
from editloop.scoring.opening import open_judge
from infra.settings import ServiceSettings

SECRET = "planted-token"


class Server:
    """Answers every request with a redirect to an address, or with an empty object."""

    def __init__(self, target: str = "") -> None:
        asked: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.command} {self.path} {self.headers}")
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(307 if target else 200)
                if target:
                    self.send_header("Location", target)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815 - the name is the library's

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.asked, self.server = asked, HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def servers() -> Iterator[tuple[Server, Server]]:
    """One that redirects, and the one that it redirects to."""
    stranger = Server()
    pair = (Server(f"{stranger.url}/inner"), stranger)
    threads = [Thread(target=server.server.serve_forever) for server in pair]
    for thread in threads:
        thread.start()
    yield pair
    for server, thread in zip(pair, threads, strict=True):
        server.server.shutdown()
        thread.join()
        server.server.server_close()


@pytest.mark.parametrize("address", ["{0}", "openai:{0}/v1#model"])
def test_a_judge_that_redirects_is_an_error_and_nobody_else_is_asked(
    address: str, servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, stranger = servers
    monkeypatch.setenv("EDITLOOP_JUDGE_TOKEN", SECRET)
    with pytest.raises(EditLoopError, match="307") as caught:
        open_judge(address.format(first.url))
    assert len(str(caught.value).splitlines()) == 1
    assert first.asked
    assert stranger.asked == []


def test_label_studios_token_stays_with_label_studio(servers: tuple[Server, Server]) -> None:
    first, stranger = servers
    settings = ServiceSettings(label_studio_url=first.url, label_studio_token=SECRET)
    LabelStudioApi(settings).call("GET", "/api/projects/")
    assert any(SECRET in request for request in first.asked)
    assert stranger.asked
    assert not any(SECRET in request for request in stranger.asked)

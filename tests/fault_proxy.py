"""A port in front of an HTTP service that spoils the answers that a test names, as bad networks do."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote, urlsplit

FaultKind = Literal["drop", "error 500", "slow", "truncate", "change", "change upload"]


@dataclass
class Fault:
    """Spoils the next `times` answers to requests of one method whose path ends in `path`."""

    method: str
    """Empty for every method."""
    path: str
    kind: FaultKind
    times: int = 1
    seconds: float = 0.3
    """How long a slow answer takes."""


class FaultProxy:
    """Forwards requests to a service and keeps a list of them."""

    def __init__(self, service_url: str):
        self.service = urlsplit(service_url).netloc
        self.faults: list[Fault] = []
        self.answers: list[tuple[str, str, int]] = []
        """Method, path without its query, and status of each answer of the service."""
        self._lock = threading.Lock()
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self.server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The fault for a request, which is used up."""
        with self._lock:
            for fault in self.faults:
                if fault.times and fault.method in ("", method) and path.endswith(fault.path):
                    fault.times -= 1
                    return fault
        return None

    def statuses(self, method: str, path: str) -> list[int]:
        """The service's answers to requests of one method whose path ends in `path`."""
        return [status for asked, where, status in self.answers if asked == method and where.endswith(path)]


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """Say nothing of a client that has left."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy

    def _forward(self) -> None:
        chunked = self.headers.get("Transfer-Encoding", "") == "chunked"
        body = self._read_chunks() if chunked else self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        fault = self.owner.take_fault(self.command, path)
        kind = fault.kind if fault else ""
        if kind == "drop":
            self.close_connection = True
            return
        if kind == "error 500":
            self._answer(500, [], b"<Error><Code>InternalError</Code></Error>")
            return
        if kind == "change upload":
            body = _changed(body)
        if fault and kind == "slow":
            time.sleep(fault.seconds)
        headers = {
            name: value for name, value in self.headers.items() if name.lower() not in ("expect", "transfer-encoding")
        }
        service = http.client.HTTPConnection(self.owner.service)
        try:
            service.request(self.command, self.path, body, headers)
            answer = service.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException):  # it is away, or was killed meanwhile
            self.close_connection = True
            return
        finally:
            service.close()
        self.owner.answers.append((self.command, path, answer.status))
        length = str(len(content)) if self.command != "HEAD" else answer.getheader("Content-Length", "0")
        skipped = ("content-length", "connection", "transfer-encoding")
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in skipped]
        if kind == "change":
            content = _changed(content)
        if kind == "truncate":
            content = content[: len(content) // 2]
            self.close_connection = True
        self._answer(answer.status, [*kept, ("Content-Length", length)], content)

    def _read_chunks(self) -> bytes:
        """A body whose length is not told before."""
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers or [("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_HEAD = do_DELETE = _forward  # noqa: N815 (the names that http.server calls)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


def _changed(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1]) if content else content


@contextmanager
def fault_proxy(service_url: str) -> Iterator[FaultProxy]:
    """A proxy that ends with the block."""
    proxy = FaultProxy(service_url)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join()

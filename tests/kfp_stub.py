"""A server that follows Kubeflow Pipelines' API (v2beta1) as far as submitting, watching and ending runs needs it."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

API = "/apis/v2beta1"


class KfpStub:
    """Its runs, by id, as the API gives them."""

    def __init__(self, url: str):
        self.url = url
        self.runs: dict[str, dict[str, Any]] = {}
        self.lock = threading.Lock()
        self.version = "2.17.0"
        self.create_seconds = 0.0
        """How long a creation takes."""

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(self.create_seconds)
        with self.lock:
            run_id = f"run-{len(self.runs) + 1}"
            at = f"2026-01-01T00:00:{len(self.runs):02d}Z"
            self.runs[run_id] = {**body, "run_id": run_id, "state": "RUNNING", "created_at": at, "state_history": []}
            return self.runs[run_id]

    def end(self, run_id: str, state: str, message: str = "", finished_at: str = "2026-01-01T01:00:00Z") -> None:
        error = {"error": {"code": 2, "message": message}} if message else {}
        self.runs[run_id] |= {"state": state, "finished_at": finished_at, **error}

    def terminate(self, run_id: str) -> None:
        """As a click in the UI does: the run was CANCELING and is FAILED."""
        self.runs[run_id]["state_history"].append({"state": "CANCELING", "update_time": "2026-01-01T00:30:00Z"})
        self.end(run_id, "FAILED")

    def named(self, name: str) -> list[dict[str, Any]]:
        runs = [run for run in self.runs.values() if run["display_name"] == name]
        return sorted(runs, key=lambda run: str(run["created_at"]), reverse=True)


@contextmanager
def kfp_stub() -> Iterator[KfpStub]:
    """A stub that listens on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlsplit(self.path)
            path, query = address.path.removeprefix(API), parse_qs(address.query)
            if path == "/healthz":
                return self.reply({"commit_sha": "c", "tag_name": stub.version, "multi_user": False})
            if path == "/experiments":
                return self.reply(
                    {"experiments": [{"experiment_id": "e", "display_name": "editloop", "namespace": ""}]}
                )
            if path == "/runs":
                (predicate,) = json.loads(query["filter"][0])["predicates"]
                return self.reply({"runs": stub.named(predicate["stringValue"])})
            run = stub.runs.get(path.removeprefix("/runs/"))
            return self.reply(run) if run else self.reply({"error": "not found"}, 404)

        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            path = urlsplit(self.path).path.removeprefix(API)
            if path.endswith(":terminate"):
                stub.terminate(path.removeprefix("/runs/").removesuffix(":terminate"))
                return self.reply({})
            return self.reply(stub.create(body))

        def reply(self, body: Any, status: int = 200) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub = KfpStub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()

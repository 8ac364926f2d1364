"""A server of a judge in a process of its own, as `editloop serve` starts it, and what is sent to it."""

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil

from editloop.certificates import shared_certificates
from editloop.data.png_encoding import encode_png
from editloop.models.judge_protocol import EditGroup
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge

TOKEN = "a-secret"
ADDRESS = {"Authorization": f"Bearer {TOKEN}"}
START = """
import sys
from editloop.scoring.serving.server import serve
from editloop.scoring.server_settings import ServeSettings
from tests.pixel_judge import open_pixel_judge

if __name__ == "__main__":
    opener = open_pixel_judge if sys.argv[1] in ("pixel", "broken") else None
    serve(sys.argv[1], ServeSettings.model_validate_json(sys.argv[2]), opener=opener)
"""


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log: Path):
        self.process, self.url, self.log = process, url, log

    def workers(self) -> list[psutil.Process]:
        """The processes that have a model."""
        return self._children("spawn_main")

    def judge(self, **settings: Any) -> ServedJudge:
        return ServedJudge(self.url, JudgeClientSettings(token=TOKEN, **{"patience": 60.0, **settings}))

    def decoders(self) -> list[psutil.Process]:
        """The processes that decode requests."""
        return self._children("editloop.scoring.serving.decoding")

    def _children(self, word: str) -> list[psutil.Process]:
        """The server's processes with a word in their command."""
        children = []
        for child in psutil.Process(self.process.pid).children():
            try:
                children += [child] if word in " ".join(child.cmdline()) else []
            except psutil.Error:  # it has just died
                pass
        return children

    def metric(self, name: str) -> float:
        lines = httpx.get(f"{self.url}/metrics", headers=ADDRESS, verify=shared_certificates()).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextmanager
def served(folder: Path, model: str = "pixel", **settings: Any) -> Iterator[Server]:
    script, log = folder / "serve_judge.py", folder / "server.log"
    script.write_text(START)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = json.dumps({"port": port, "window_ms": 5, **settings})
    environment = {**os.environ, "EDITLOOP_SERVE_TOKEN": TOKEN, "PYTHONPATH": os.getcwd()}
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, str(script), model, told], env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
    server = Server(process, f"http://127.0.0.1:{port}", log)
    try:
        deadline = time.monotonic() + 90
        while not ready(server.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", verify=shared_certificates()).status_code == 200
    except httpx.TransportError:
        return False


def pictures(count: int, seed: int = 0, side: int = 16) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, size=(count, side, side, 3), dtype=np.uint8))


def group(seed: int, edits: int = 2, instruction: str = "make it red") -> EditGroup:
    source, *made = pictures(edits + 1, seed)
    return EditGroup(instruction, source, made)


def body(instruction: Any = "x", source: Any = None, edits: Any = None) -> dict[str, Any]:
    good = base64.b64encode(encode_png(pictures(1)[0])).decode()
    return {"instruction": instruction, "source": source or good, "edits": [good] if edits is None else edits}


def post(server: Server, content: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/score", json=content, headers={**ADDRESS, **(headers or {})}, timeout=60)

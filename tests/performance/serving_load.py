"""A server of scores under load: requests a second and waiting times against batch size, and with a worker killed.

    python -m tests.performance.serving_load        # the table, a minute or two

Real processes on loopback: `editloop serve --model tiny-reward` with one worker, and 32 connections that always have a
request under way (saturation). A request is one edit of 32 x 32 pixels; four requests are of one task, as the members
of an RL group or the candidates of an expert's task are.
"""

import atexit
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import psutil

from editloop.data.png_encoding import encode_png
from editloop.scoring.server_messages import ScoreReply, ScoreRequest
from editloop.studies.world.scenes import random_edit
from tests.performance.bench import Benchmark

MODEL = "tiny-reward"
REQUESTS, CONNECTIONS, MEMBERS = 400, 32, 4
BATCHES = (1, 4, 16, 32)
START_SECONDS = 120


class Load(NamedTuple):
    """What clients saw."""

    seconds: float
    """From the first request to the last answer."""
    waits: list[float]
    """Seconds a request, in their order."""
    overall: list[float | None]
    """Score of each request; None where there was no answer or no score."""

    @property
    def lost(self) -> int:
        return sum(score is None for score in self.overall)


class Server(NamedTuple):
    port: int
    process: subprocess.Popen[bytes]

    def worker(self) -> int:
        """Process id of the worker."""
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if "spawn_main" in " ".join(child.cmdline()))


@contextmanager
def serving(max_batch: int) -> Iterator[Server]:
    """`editloop serve` with one worker, ready; batches of at most so many edits."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    call = "import sys; from pipelines.cli import main; sys.exit(main())"
    arguments = ["serve", "--model", MODEL, "--port", str(port), "--max-batch", str(max_batch), "--queue", "10000"]
    environment = {name: value for name, value in os.environ.items() if name != "EDITLOOP_SERVE_TOKEN"}
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", call, *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        try:
            deadline = time.monotonic() + START_SECONDS
            while not _ready(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not start: {(Path(folder) / 'log').read_text()}")
                time.sleep(0.1)
            yield Server(port, process)
        finally:
            process.terminate()
            process.wait(30)


def _ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@cache
def bodies() -> list[bytes]:
    """The requests, made before any clock runs."""
    rng = np.random.default_rng(0)
    made: list[bytes] = []
    for _ in range(REQUESTS // MEMBERS):
        edit = random_edit(rng)
        for part in rng.uniform(0, 1, size=MEMBERS):
            picture = (edit.source + part * (edit.target.astype(float) - edit.source)).astype(np.uint8)
            request = ScoreRequest(
                instruction=edit.instruction, source=encode_png(edit.source), edits=[encode_png(picture)]
            )
            made.append(request.model_dump_json().encode())
    return made


def put_under_load(port: int) -> Load:
    """Send all requests over so many connections, each a request at a time, and wait for every answer."""
    requests = bodies()
    waits, overall = [0.0] * len(requests), list[float | None]([None] * len(requests))
    places = iter(range(len(requests)))
    lock = threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while True:
            with lock:
                place = next(places, None)
            if place is None:
                connection.close()
                return
            began = time.monotonic()
            connection.request("POST", "/v1/score", requests[place], {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
            waits[place] = time.monotonic() - began
            if answer.status == 200:
                overall[place] = ScoreReply.model_validate_json(content).scores[0].overall

    threads = [threading.Thread(target=client) for _ in range(CONNECTIONS)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(time.monotonic() - began, waits, overall)


def put_under_load_and_kill(server: Server, seconds: float) -> Load:
    """The same, and the worker is killed after so many seconds."""
    worker = server.worker()
    timer = threading.Timer(seconds, os.kill, (worker, signal.SIGKILL))
    timer.start()
    load = put_under_load(server.port)
    timer.join()
    if server.worker() == worker:
        raise RuntimeError("the worker that was killed is still there")
    return load


def same_scores(one: Load, other: Load) -> bool:
    """No request lost, and each with the same score both times."""
    return one.lost == other.lost == 0 and bool(np.allclose(one.overall, other.overall, atol=1e-3))  # type: ignore[arg-type]


def requests_at_saturation() -> Benchmark:
    """400 requests from 32 connections: a server that judges them one by one, against one that batches by task."""
    stack = ExitStack()
    atexit.register(stack.close)

    @cache
    def server(max_batch: int) -> Server:
        return stack.enter_context(serving(max_batch))

    return Benchmark(
        "serving: 400 requests at saturation, seconds",
        plain=lambda: put_under_load(server(1).port),
        ours=lambda: put_under_load(server(32).port),
        target=1.5,
        same=same_scores,
    )


BENCHMARKS = (requests_at_saturation,)


def main() -> None:
    """Print the table, and write it to runs/serving_load.json."""
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table

    from editloop.content import write_json

    table = Table(title=f"`editloop serve`, {REQUESTS} requests over {CONNECTIONS} connections, one worker")
    for heading in ("largest batch", "requests/s", "p50 ms", "p99 ms", "lost"):
        table.add_column(heading, justify="right")
    results = []

    def add(name: str, load: Load) -> None:
        p50, p99 = (1000 * float(np.percentile(load.waits, share)) for share in (50, 99))
        rate = len(load.waits) / load.seconds
        results.append({"batch": name, "requests_per_second": rate, "p50_ms": p50, "p99_ms": p99, "lost": load.lost})
        table.add_row(name, f"{rate:.0f}", f"{p50:.0f}", f"{p99:.0f}", str(load.lost))

    for batch in track(BATCHES, description="load", transient=True):
        with serving(batch) as server:
            put_under_load(server.port)
            load = put_under_load(server.port)
            add(str(batch), load)
            if batch == BATCHES[-1]:
                killed = put_under_load_and_kill(server, load.seconds / 3)
                add(f"{batch}, worker killed", killed)
                if not same_scores(load, killed):
                    raise SystemExit("scores were lost or changed when the worker was killed")
    Console().print(table)
    write_json(Path("runs/serving_load.json"), results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()

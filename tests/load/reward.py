"""`editloop serve` at saturation while its processes are killed: every answer right, every refusal worth a retry.

More connections than the server takes at once ask for scores through our own client. A worker, or a process that
decodes pictures, gets SIGKILL every few seconds.
"""

import os
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from pydantic import SecretStr

from editloop.certificates import shared_certificates
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, Judge, Score
from editloop.scoring.opening import open_judge
from editloop.scoring.server_client import JudgeClientSettings, ServedJudge
from editloop.studies.world.scenes import random_edit
from tests.load.measurement import Row, Watch, waits, with_children
from tests.served_judge import TOKEN, Server, served

MODEL = "tiny-reward"
TASKS, MEMBERS = 60, 4
CONNECTIONS = 48
SETTINGS = {"workers": 2, "queue": 96, "max_batch": 32, "tries": 5}
"""One address may have half of the queue: fewer edits than its connections send, so that some are refused."""
KILL_SECONDS = 5.0
"""Between two kills; three of four are of a process that decodes. A worker is killed while all have their model."""
REFUSALS = (429, 503)
TOLERANCE = 1e-3
"""Of a score: how edits are batched changes the order of sums, and nothing else."""


class Recorder(httpx.BaseTransport):
    """Carries the client's requests, and keeps what each was answered with."""

    def __init__(self) -> None:
        self.transport = httpx.HTTPTransport(
            limits=httpx.Limits(max_connections=CONNECTIONS), verify=shared_certificates()
        )
        self.statuses: Counter[int] = Counter()
        self.faults: Counter[str] = Counter()
        """Answers that a client could not come back after."""
        self.lock = threading.Lock()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        try:
            reply = self.transport.handle_request(request)
        except httpx.HTTPError as error:
            with self.lock:
                self.faults[f"{type(error).__name__} {error}"] += 1
            raise
        fault = ""
        if reply.status_code in REFUSALS and not reply.headers.get("Retry-After", "").isdigit():
            fault = f"{reply.status_code} without Retry-After"
        elif reply.status_code not in (200, *REFUSALS):
            fault = f"{reply.status_code} {reply.read()[:300].decode(errors='replace')}"
        with self.lock:
            self.statuses[reply.status_code] += 1
            self.faults.update([fault] if fault else [])
        return reply


def make_groups() -> list[EditGroup]:
    """Tasks with edits between the source and the right result."""
    rng, groups = np.random.default_rng(0), []
    for _ in range(TASKS):
        edit = random_edit(rng)
        parts = rng.uniform(0, 1, MEMBERS)
        edits = [(edit.source + part * (edit.target.astype(float) - edit.source)).astype(np.uint8) for part in parts]
        groups.append(EditGroup(edit.instruction, edit.source, edits))
    return groups


def figures_of(scores: list[Score]) -> np.ndarray:
    """The numbers of some scores; NaN for a missing one."""
    return np.array(
        [
            [np.nan if score.overall is None else score.overall, *(axis.mean for axis in score.axes.values())]
            if not score.missing
            else [np.nan] * 3
            for score in scores
        ]
    )


def kill_processes(server: Server, end: float, seconds: float) -> Counter[str]:
    """Kill one process after the other, and return how many of each kind.

    Args:
        server: The server.
        end: When to stop, by the monotonic clock.
        seconds: Between two kills.
    """
    killed: Counter[str] = Counter()
    while time.monotonic() + seconds < end:
        time.sleep(seconds)
        are_ready = server.metric("editloop_ready_workers") == SETTINGS["workers"]
        kind = "worker" if are_ready and killed["decoder"] >= 3 * (killed["worker"] + 1) else "decoder"
        processes = server.workers() if kind == "worker" else server.decoders()
        if processes:
            os.kill(processes[killed.total() % len(processes)].pid, signal.SIGKILL)
            killed[kind] += 1
    return killed


def measure(seconds: float, kill_seconds: float = KILL_SECONDS) -> list[Row]:
    """Ask a server of the small reward model for scores while its processes are killed.

    Args:
        seconds: How long.
        kill_seconds: Seconds between two kills.
    """
    groups = make_groups()
    with tempfile.TemporaryDirectory() as temporary, served(Path(temporary), MODEL, **SETTINGS) as server:
        return [ask_while_killing(server, open_judge(MODEL, device="cpu"), groups, seconds, kill_seconds)]


def ask_while_killing(
    server: Server, judge: Judge, groups: list[EditGroup], seconds: float, kill_seconds: float
) -> Row:
    """Ask a server for scores over many connections while its processes are killed.

    Args:
        server: The server, with SETTINGS.
        judge: The judge that it serves, in this process.
        groups: What is asked about.
        seconds: How long.
        kill_seconds: Seconds between two kills.
    """
    expected = [figures_of(scores) for scores in judge.judge(groups)]
    apart = np.ptp(np.concatenate(expected)[:, 0])
    assert apart > 100 * TOLERANCE, "scores of other edits would be taken for these"
    recorder = Recorder()
    wrong, unanswered, waiting = Counter[str](), Counter[str](), list[float]()
    client = ServedJudge(server.url, JudgeClientSettings(token=SecretStr(TOKEN), patience=300.0), recorder)
    end = time.monotonic() + seconds

    def ask(number: int) -> None:
        chance = np.random.default_rng(number)
        while time.monotonic() < end:
            index = int(chance.integers(len(groups)))
            began = time.monotonic()
            try:
                (scores,) = client.judge([groups[index]])
            except EditLoopError as error:
                unanswered[str(error)] += 1
                continue
            waiting.append(time.monotonic() - began)
            if not np.allclose(figures_of(scores), expected[index], atol=TOLERANCE):
                wrong[groups[index].instruction] += 1

    with (
        Watch(lambda: with_children(server.process.pid)) as memory,
        ThreadPoolExecutor(CONNECTIONS) as clients,
        ThreadPoolExecutor(1) as killer,
    ):
        kills = killer.submit(kill_processes, server, end, kill_seconds)
        list(clients.map(ask, range(CONNECTIONS)))
        killed = kills.result()
    for fault, count in [*recorder.faults.most_common(5), *unanswered.most_common(5)]:
        print(f"{count} x {fault}")
    return Row(
        "reward",
        f"reward service at saturation for {seconds:g} s, {CONNECTIONS} connections, {SETTINGS['workers']} workers",
        {
            "answers": len(waiting),
            "edits a second": round(MEMBERS * len(waiting) / seconds, 1),
            "workers killed": killed["worker"],
            "decoders killed": killed["decoder"],
            "wrong answers": wrong.total(),
            "unanswered": unanswered.total(),
            "429 with Retry-After": recorder.statuses[429],
            "503 with Retry-After": recorder.statuses[503],
            "other errors": recorder.faults.total(),
            "seconds of an answer with its retries, p50 and p95": waits(waiting),
            **memory.figures("the server with its processes"),
            "load average": round(memory.load, 1),
        },
        bool(waiting)
        and server.process.poll() is None
        and killed.total() > 0
        and not (wrong or unanswered or recorder.faults)
        and memory.is_flat,
    )

"""200 annotators at work in a real Label Studio, and the reconciler beside them.

Each asks for the next page, fetches its pictures, what the page's script asks for, thinks, and submits, as the
labelling page does. Webhooks of the answers hint the reconciler to a pass after the other: export, mending, counters.
"""

import asyncio
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import httpx

from annotation.campaigns.accounts import read_accounts
from annotation.campaigns.counters import repair_counters
from annotation.campaigns.labelling import result_of
from editloop.certificates import shared_certificates
from infra.service_processes import marked_processes
from infra.services import start_services, stop_services
from tests.answered_campaigns import Opened, open_one
from tests.load.measurement import Row, Watch, waits, with_children
from tests.performance.annotation_scale import draw_candidates

PEOPLE, TASKS, OVERLAP = 200, 1000, 3
GOLD, REPEATS = 4, 2
"""Pages that everybody is asked, the repeats' originals too: many answer one of them at once."""
THINKING = 40.0
"""Seconds for a page, on average."""
REQUEST_SECONDS = 300
COMMAND = "import sys; from pipelines.cli import main; sys.exit(main())"
PASS_SECONDS = 30
EMPTY = 404
"""Label Studio's answer where there is no next page."""
LEVELS = (1, 2, 3, 4)


class Request(NamedTuple):
    """One request of an annotator's browser."""

    kind: str
    seconds: float
    fault: str
    """Empty for none."""


class Difference(NamedTuple):
    """How the answers at the end differ from those that were taken. Everything is empty or 0 for none."""

    lost: list[tuple[str, str]]
    """Page and annotator of answers that are missing or say something else."""
    doubled: list[tuple[str, str]]
    """Of answers that are there more than once."""
    strange: int
    """Answers that nobody gave."""
    miscounted: int
    """Pages that Label Studio's own counters have wrong."""


class Traffic:
    """What all annotators sent, and what Label Studio took."""

    def __init__(self, opened: Opened, thinking: float):
        """Prepare.

        Args:
            opened: The open campaign.
            thinking: Mean seconds for a page.
        """
        self.opened, self.thinking = opened, thinking
        self.requests: list[Request] = []
        self.taken: dict[tuple[str, str], tuple[dict[str, int], ...]] = {}
        """Ratings that Label Studio has taken, by page and annotator."""
        self.twice: list[tuple[str, str]] = []
        """Pages that somebody got a second time after the answer was taken."""

    @property
    def faults(self) -> list[str]:
        """What Label Studio refused, and what it did not answer."""
        return [request.fault for request in self.requests if request.fault]

    def compare(self) -> "Difference":
        """Hold the answers that our code reads from Label Studio against those that it took."""
        opened, live = self.opened, self.opened.live()
        present = Counter((answer.page, str(answer.annotator)) for answer in live.answers.given)
        counting = {key: answer.ratings for key, answer in live.answers.counting().items()}
        return Difference(
            [key for key, levels in self.taken.items() if counting.get(key) != levels],
            [key for key, count in present.items() if count > 1],
            len(present.keys() - self.taken.keys()),
            repair_counters(opened.settings, opened.record(), opened.pages, live),
        )

    async def run(self, seconds: float) -> None:
        """Let everybody work for so many seconds, and wait for what is under way then."""
        accounts = read_accounts(self.opened.settings)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=len(accounts))
        async with httpx.AsyncClient(
            base_url=self.opened.settings.require("label_studio_url"),
            timeout=REQUEST_SECONDS,
            limits=limits,
            verify=shared_certificates(),
            follow_redirects=True,
        ) as client:
            end = time.monotonic() + seconds
            work = (self._annotate(client, name, accounts[name].token, end) for name in self.opened.campaign.annotators)
            await asyncio.gather(*work)

    async def _annotate(self, client: httpx.AsyncClient, name: str, token: str, end: float) -> None:
        chance, project = random.Random(name), self.opened.campaign.project_id
        headers = {"Authorization": f"Token {token}"}

        async def ask(kind: str, method: str, path: str, **more: Any) -> Any:
            began, fault, content = time.monotonic(), "", None
            try:
                reply = await client.request(method, path, headers=headers, **more)
                if reply.is_success:
                    content = reply.json() if reply.headers["Content-Type"].startswith("application/json") else b""
                elif reply.status_code != EMPTY or kind != "next page":
                    fault = f"{kind}: {reply.status_code} {reply.text[:200]}"
            except httpx.HTTPError as error:
                fault = f"{kind}: {type(error).__name__} {error}"
            self.requests.append(Request(kind, time.monotonic() - began, fault))
            return content

        await asyncio.sleep(chance.uniform(0, self.thinking))
        while time.monotonic() < end:
            task = await ask("next page", "GET", f"/api/projects/{project}/next")
            if task is None:
                return
            page = task["data"]["key"]
            pictures = {str(value) for value in task["data"].values() if str(value).startswith("/data/")}
            await asyncio.gather(*(ask("picture", "GET", path) for path in pictures))
            counts = {"include": "queue_total,queue_done"}
            await ask("progress", "GET", f"/api/projects/{project}", params=counts)
            await asyncio.sleep(self.thinking * chance.uniform(0.5, 1.5))
            levels = tuple(
                {"if": chance.choice(LEVELS), "vq": chance.choice(LEVELS)} for _ in range(self.opened.campaign.places)
            )
            body = {"result": result_of(levels), "lead_time": self.thinking, "was_cancelled": False}
            if lock := task.get("unique_lock_id"):  # Label Studio takes one answer for each time that it locked a page
                body["unique_id"] = lock
            if (page, name) in self.taken:
                self.twice.append((page, name))
            if await ask("answer", "POST", f"/api/tasks/{task['id']}/annotations/", json=body) is not None:
                self.taken[page, name] = levels


@contextmanager
def reconciler(home: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`editloop reconcile --listen`, hinted by webhooks, after its first pass, with its log.

    Args:
        home: Folder for what it starts and for its log.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    variables = {"EDITLOOP_HINT_SECRET": "a long secret", "EDITLOOP_HINT_URL": f"http://{address}/hint"}
    options = ["--listen", address, "--seconds", str(PASS_SECONDS), "--out", str(home)]
    log = home.with_name("reconcile.log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, "reconcile", *options],
            env=os.environ | variables,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + REQUEST_SECONDS
        while "waiting" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        yield process, log
    finally:
        process.terminate()
        process.wait(60)


def measure(seconds: float, people: int = PEOPLE, tasks: int = TASKS, thinking: float = THINKING) -> list[Row]:
    """Let annotators work in a Label Studio of their own, and hold its answers against what it took.

    Args:
        seconds: How long they work.
        people: How many they are.
        tasks: Tasks of the campaign, with four edits each.
        thinking: Mean seconds for a page.
    """
    names = [f"annotator-{number:03}" for number in range(people)]
    allowed = {"SSRF_PROTECTION_ENABLED": "false"}  # webhooks to this machine, which Label Studio refuses otherwise
    with tempfile.TemporaryDirectory(prefix="editloop-load-") as temporary, patch.dict(os.environ, allowed):
        folder = Path(temporary)
        draw_candidates(folder / "candidates", tasks)
        services = start_services(folder / "services")
        try:
            with patch.dict(os.environ, services.environment):
                began = time.monotonic()
                opened = open_one(
                    folder / "candidates",
                    folder / "campaign",
                    "load",
                    recorded=True,
                    annotators=names,
                    overlap=min(OVERLAP, people),
                    gold_pages=min(GOLD, tasks // 4),
                    repeat_pages=min(REPEATS, tasks // 4),
                )
                opening = time.monotonic() - began
                return [_work(opened, folder, seconds, thinking, opening)]
        finally:
            stop_services(folder / "services")


def _work(opened: Opened, folder: Path, seconds: float, thinking: float, opening: float) -> Row:
    traffic, services = Traffic(opened, thinking), folder / "services"
    with (
        reconciler(folder / "loop") as (process, log),
        Watch(lambda: with_children(process.pid)) as ours,
        Watch(lambda: marked_processes(services, "label-studio")) as theirs,
    ):
        began = time.monotonic()
        asyncio.run(traffic.run(seconds))
        took = time.monotonic() - began
        is_alive = process.poll() is None
        passes = log.read_text()
    once = subprocess.run(
        [sys.executable, "-c", COMMAND, "reconcile", "--once", "--out", str(folder / "loop")],
        capture_output=True,
        text=True,
        check=False,
    )
    failures = re.findall("^(?:failed|Traceback).*$", passes, re.MULTILINE)
    difference = traffic.compare()
    faults = traffic.faults
    for fault, count in Counter(faults).most_common(5):
        print(f"{count} x {fault}")
    print("\n".join(failures[:5]) or once.stderr)
    by_kind = {
        kind: [request.seconds for request in traffic.requests if request.kind == kind]
        for kind in ("next page", "picture", "answer")
    }
    return Row(
        "annotators",
        f"{len(opened.campaign.annotators)} annotators in Label Studio for {seconds:g} s, {thinking:g} s a page",
        {
            "requests": len(traffic.requests),
            "requests a second": round(len(traffic.requests) / took, 1),
            "answers": len(traffic.taken),
            "errors": len(faults) + len(failures),
            "lost or changed": len(difference.lost),
            "doubled": len(difference.doubled) + len(traffic.twice),
            "of nobody": difference.strange,
            "passes of the reconciler": len(re.findall("^waiting", passes, re.MULTILINE)),
            "wrong counters after a pass": difference.miscounted,
            **{f"seconds of {kind}, p50 and p95": waits(values) for kind, values in by_kind.items()},
            **ours.figures("the reconciler"),
            **theirs.figures("Label Studio"),
            "seconds of opening with accounts": round(opening),
            "load average": round(ours.load, 1),
        },
        bool(traffic.taken)
        and is_alive
        and once.returncode == 0
        and not (faults or failures or traffic.twice or any(difference))
        and ours.is_flat,
    )

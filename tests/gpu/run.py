"""Run the rows one after the other, each in a process of its own, within a time that they share.

    python -m tests.gpu.run --out build/gpu [--tiny] [--seconds 400] [--row NAME ...]

Writes gpu.json after every row, so that what was measured is there whatever comes after, and gpu.md, the same as a
page.
Light: this process imports no torch and takes no memory of the GPU.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.gpu.page import page
from tests.gpu.rows import ROWS, Row

TOP = Path(__file__).parents[2]
SECONDS = 540.0
"""For all rows: `run.sh` ends within ten minutes."""
FACTS_SECONDS = 60.0
RESERVE = 5.0
"""Left for what comes after the last row."""
ALLOCATOR = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
"""Memory that was in pieces can be put together; not every machine's driver allows it."""

RunRow = Callable[[Row, float], dict[str, Any]]
"""(row, most seconds) to {status, reason, figures}."""


def run_rows(
    rows: Sequence[Row], run_row: RunRow, *, deadline: float, report: Callable[[list[dict[str, Any]]], None]
) -> list[dict[str, Any]]:
    """Outcomes of the rows in their order; `report` hears of them after each. deadline: of time.monotonic()."""
    outcomes: list[dict[str, Any]] = []
    for row in rows:
        began = time.monotonic()
        left = deadline - began - RESERVE
        larger = [
            earlier["name"] for earlier in outcomes if earlier["status"] == "ok" and earlier["name"] in row.unless
        ]
        if larger:
            outcome = _skipped(f"a larger editor was measured ({larger[0]})")
        elif left < row.least_seconds:
            outcome = _skipped(
                f"{max(left, 0):.0f} s were left of the time that all rows share; it needs about {row.least_seconds:g}"
            )
        else:
            outcome = run_row(row, min(row.most_seconds, left))
        took = round(time.monotonic() - began, 1)
        outcomes.append({"name": row.name, "title": row.title, **outcome, "seconds": took})
        report(outcomes)
    return outcomes


def run_apart(row: Row, seconds: float, *, size: str, environment: dict[str, str], scratch: Path) -> dict[str, Any]:
    """A row in a process of its own, which is killed after so many seconds; its output goes on to ours."""
    target, folder = scratch / f"{row.name}.json", scratch / row.name
    folder.mkdir()
    call = [sys.executable, "-m", "tests.gpu.child", row.name, str(target), size, str(folder)]
    return outcome_of_call(call, target, seconds, environment)


def outcome_of_call(call: Sequence[str], target: Path, seconds: float, environment: dict[str, str]) -> dict[str, Any]:
    """What a process wrote into `target`; how it ended, where it wrote nothing."""
    process = subprocess.Popen(call, cwd=TOP, env=environment, start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return _failed(f"not done after {seconds:.0f} s")
    if target.is_file():
        outcome: dict[str, Any] = json.loads(target.read_text())
        return outcome
    ended = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
    return _failed(f"its process ended {ended}")


def facts_of(environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Facts of the machine, and the environment that rows run in: without ALLOCATOR where that does not work."""
    problem = ""
    for variables in (environment | ALLOCATOR, environment):
        command = [sys.executable, "-m", "tests.gpu.machine"]
        try:
            answer = subprocess.run(
                command, cwd=TOP, env=variables, capture_output=True, text=True, timeout=FACTS_SECONDS
            )
        except subprocess.TimeoutExpired:
            problem = f"no answer after {FACTS_SECONDS:g} s"
            continue
        if answer.returncode == 0:
            return json.loads(answer.stdout.splitlines()[-1]), variables
        problem = answer.stderr.strip()
    raise SystemExit(f"tests.gpu.machine: {problem}\nThe machine's torch does not work; nothing was measured.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(prog="tests/gpu/run.sh")
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "build/gpu"), help="output folder")
    parser.add_argument("--tiny", action="store_true", help="tiny sizes, on any CPU")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time that all rows share")
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS], help="only this row; repeatable")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    facts, environment = facts_of(dict(os.environ))
    if facts["driver"] is None and not options.tiny:
        raise SystemExit("tests/gpu/run.sh: torch finds no GPU here. --tiny runs the rows at tiny sizes on the CPU.")
    size = "tiny" if options.tiny else "real"

    def report(outcomes: list[dict[str, Any]]) -> None:
        results = {
            "machine": facts,
            "size": size,
            "seconds": round(time.monotonic() - began, 1),
            "rows": outcomes,
        }
        (options.out / "gpu.json").write_text(json.dumps(results, indent=1) + "\n")
        (options.out / "gpu.md").write_text(page(results))
        last = outcomes[-1]
        print(f"{last['name']}: {last['status']} {last['reason']} ({last['seconds']} s)", flush=True)

    with tempfile.TemporaryDirectory() as scratch:

        def apart(row: Row, seconds: float) -> dict[str, Any]:
            return run_apart(row, seconds, size=size, environment=environment, scratch=Path(scratch))

        chosen = [row for row in ROWS if not options.row or row.name in options.row]
        run_rows(chosen, apart, deadline=began + options.seconds, report=report)
    print(f"{options.out / 'gpu.json'}, {options.out / 'gpu.md'}", flush=True)


def _skipped(reason: str) -> dict[str, Any]:
    return {"status": "skipped", "reason": reason, "figures": {}}


def _failed(reason: str) -> dict[str, Any]:
    return {"status": "failed", "reason": reason, "figures": {}}


if __name__ == "__main__":
    main()

"""Break the loop at random moments and call it again, until its outcome is there; then compare it with a quiet run's.

    python -m tests.chaos                       # 84 faults
    python -m tests.chaos --turns 4 --seed 7    # a part

A turn of the loop in its smallest size suffers several faults, each in another stage. After a fault that ends the call
it is called again. Every fault of a turn counts as survived where the turn ends in the outcome of the quiet run.
Writes runs/chaos.json: {faults, survived, rows: [{fault, stage, moment, survived, seconds, calls, seed}]}.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from editloop.content import write_json
from tests.chaos.call import STAGES_OF_A_TURN, DemoCall, end_all, processes_of
from tests.chaos.faults import FAULTS, Fault, FaultError

RESULTS = Path("runs/chaos.json")
FAULTS_OF_A_TURN = 4
LONGEST_DELAY = 6.0
"""Seconds after a stage's beginning at which its fault comes, at most."""
CALL_SECONDS = 420
"""After so many seconds a user presses Ctrl-C and calls again."""
MOST_CALLS = 8
DISK_GIGABYTES = 3


class Planned(NamedTuple):
    """A fault, and when it comes."""

    fault: Fault
    stage: str
    moment: float
    """Seconds after the beginning of the stage."""


def plan(seed: int, faults: Sequence[Fault], number: int) -> list[Planned]:
    """Return the faults of a turn, in the order of their stages. No stage has two, so that each fault has its moment.

    Args:
        seed: The turn's seed.
        faults: The kinds to choose from.
        number: Faults of the turn.
    """
    chance, chosen = Random(seed), list[Planned]()
    stages = sorted(chance.sample(range(len(STAGES_OF_A_TURN)), number))
    for stage in (STAGES_OF_A_TURN[index] for index in stages):
        fault = chance.choice([fault for fault in faults if not fault.stages or stage in fault.stages])
        chosen.append(Planned(fault, stage, round(chance.uniform(0, LONGEST_DELAY), 2)))
    return chosen


def broken_turn(out: Path, seed: int, planned: Sequence[Planned], expected: dict[str, Any]) -> list[dict[str, Any]]:
    """Run a turn with faults, and return a row for each.

    Args:
        out: Folder of the demo.
        seed: The turn's seed, by which moments within a fault are chosen.
        planned: The faults.
        expected: The quiet run's outcome.
    """
    chance, began, calls, waiting = Random(seed), time.monotonic(), 0, list(planned)
    applied: list[Planned] = []
    trouble, status = "", None
    while calls < MOST_CALLS:
        calls += 1
        call = DemoCall(out)
        try:
            while waiting and call.reaches(waiting[0].stage, CALL_SECONDS):
                time.sleep(waiting[0].moment)
                if call.process.poll() is None:
                    applied.append(waiting[0])
                    waiting.pop(0).fault.apply(call, chance)
                else:
                    waiting.pop(0)
        except FaultError as error:
            trouble = str(error)
        status = call.ends(CALL_SECONDS)
        if status is None:
            trouble = trouble or f"call {calls} did not end in {CALL_SECONDS} s: {call.text[-300:]}"
            call.interrupt()
        if "Traceback" in call.text:
            trouble = trouble or f"call {calls} ended in a traceback: {call.text[-300:]}"
        if status == 0:
            break
    if status != 0:
        trouble = trouble or f"no call of {calls} ended well: {call.text[-300:]}"
    else:
        trouble = trouble or _difference(out, expected)
    _down(out)
    if left := processes_of(out):
        trouble = trouble or f"{len(left)} processes are left: {' '.join(left[0].cmdline())[:200]}"
        end_all(out)
    seconds = round(time.monotonic() - began, 1)
    return [
        {
            "fault": one.fault.name,
            "stage": one.stage,
            "moment": one.moment,
            "survived": not trouble,
            "seconds": seconds,
            "calls": calls,
            "seed": seed,
            **({"trouble": trouble} if trouble else {}),
        }
        for one in applied
    ]


def _difference(out: Path, expected: dict[str, Any]) -> str:
    found = read_outcome(out)
    if "error" in found:
        return f"the outcome cannot be read: {found['error']}"
    return "; ".join(
        f"{key} is {found.get(key)}, not {expected[key]}" for key in expected if found.get(key) != expected[key]
    )


def read_outcome(out: Path) -> dict[str, Any]:
    """Return a demo's outcome, read in a process of its own: it needs the demo's environment.

    Args:
        out: Folder of the demo.
    """
    code = "import json, sys; from pathlib import Path; from tests.chaos.outcome import outcome; "
    code += "print(json.dumps(outcome(Path(sys.argv[1]))))"
    read = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True)
    if read.returncode:
        return {"error": read.stderr[-500:]}
    found: dict[str, Any] = json.loads(read.stdout.splitlines()[-1])
    return found


def _down(out: Path) -> None:
    code = "import sys; from pipelines.cli import main; sys.exit(main())"
    subprocess.run([sys.executable, "-c", code, "down", "--services", str(out)], capture_output=True)


@contextmanager
def own_disk() -> Iterator[Path]:
    """Yield an empty folder on a disk of its own, where this process may mount one; else a folder like any other."""
    with tempfile.TemporaryDirectory(prefix="editloop-chaos-") as folder:
        mounted = (
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_GIGABYTES}g", "tmpfs", folder], capture_output=True
            ).returncode
            == 0
        )
        try:
            yield Path(folder)
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", folder])


def run(turns: int, seed: int, at_once: int, only: str, results: Path) -> int:
    """Run the turns, print a line for each fault, and return how many were not survived.

    Args:
        turns: Number of turns.
        seed: Seed of the first turn; the others follow.
        at_once: Turns that run beside each other.
        only: Part of a fault's name, for those faults alone; empty for all.
        results: File to write.
    """
    with own_disk() as disk:
        has_own_disk = disk.is_mount()
    faults = [fault for fault in FAULTS if only in fault.name and (has_own_disk or not fault.needs_own_disk)]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="editloop-quiet-") as quiet:
        call = DemoCall(Path(quiet) / "demo")
        if call.ends(CALL_SECONDS) != 0:
            raise SystemExit(f"the quiet run failed: {call.text[-1000:]}")
        expected = read_outcome(Path(quiet) / "demo")
        _down(Path(quiet) / "demo")
    if "error" in expected:
        raise SystemExit(f"the quiet run's outcome cannot be read: {expected['error']}")
    print(f"quiet run: {time.monotonic() - began:.0f} s, {expected}", flush=True)

    def turn(number: int) -> list[dict[str, Any]]:
        with own_disk() as disk:
            rows = broken_turn(disk / "demo", seed + number, plan(seed + number, faults, FAULTS_OF_A_TURN), expected)
            for row in rows:
                print(json.dumps(row), flush=True)
            return rows

    with ThreadPoolExecutor(at_once) as pool:
        rows = [row for each in pool.map(turn, range(turns)) for row in each]
    survived = sum(row["survived"] for row in rows)
    write_json(
        results, {"faults": len(rows), "survived": survived, "seconds": round(time.monotonic() - began), "rows": rows}
    )
    print(f"{survived} of {len(rows)} faults survived, {time.monotonic() - began:.0f} s; {results}")
    return len(rows) - survived


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21, help="turns of the loop, with 4 faults each")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first turn")
    parser.add_argument("--at-once", type=int, default=2, help="turns beside each other")
    parser.add_argument("--only", default="", help="faults with this in their name alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    told = parser.parse_args()
    sys.exit(bool(run(told.turns, told.seed, told.at_once, told.only, told.results)))

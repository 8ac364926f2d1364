"""Break the loop at random moments and call it again, until its outcome is there; then compare it with a quiet run's.

    python -m tests.chaos                                  # all
    python -m tests.chaos --turns 1 --seed 7 --rounds 0    # one turn again

A turn of the loop in its smallest size suffers a fault in each of its stages; every second turn keeps its data in a
bucket. After a fault that ends the call it is called again, once. What cannot befall a whole turn cheaply befalls a
scenario of the same services (tests/chaos/scenarios.py). Writes runs/chaos.json: {faults, survived, seconds, rows:
[{fault, stage, moment, survived, seconds, calls, seed}]}, and below runs/chaos what every call printed. With --table it
writes the table of docs/chaos.md anew.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from editloop.content import write_json
from editloop.interruption import interrupt_on_termination
from tests.chaos.call import LOOK_SECONDS, STOPPED, StoppedError, end_all, marked, pause
from tests.chaos.faults import FAULTS
from tests.chaos.table import write_table
from tests.chaos.turn import LOGS, Row, broken_turn, has_bucket, has_own_disk, own_disk, plan, quiet_turn, turn_folder

RESULTS = Path("runs/chaos.json")
TURNS = 8
FIRST_SEED = 10
"""Of the usual run: with it every kind of fault occurs."""

Rows = list[dict[str, Any]]


def run(turns: int, rounds: int, first_seed: int, at_once: int, only: str) -> Rows:
    """Run turns and scenarios, print a line for each fault, and return the rows.

    Args:
        turns: Number of turns.
        rounds: How often all scenarios are run.
        first_seed: Seed of the first turn and the first round; the others follow.
        at_once: Turns, or rounds, that run beside each other.
        only: Part of a fault's name, for those faults alone; empty for all.

    Raises:
        KeyboardInterrupt: The run was stopped. Nothing of it runs any more.
    """
    faults = [fault for fault in FAULTS if only in fault.name and (has_own_disk() or not fault.needs_own_disk)]
    began = time.monotonic()
    expected = quiet_turn() if turns else {}
    print(f"quiet run: {time.monotonic() - began:.0f} s, {expected}", flush=True)

    def turn(seed: int) -> Rows:
        planned = plan(seed, faults)
        try:
            with turn_folder(f"turn-{seed}", with_bucket=has_bucket(seed)) as folder:
                rows = [row.as_json() for row in broken_turn(folder, seed, planned, expected)]
        except StoppedError:
            raise
        except Exception as error:  # what the other turns found is kept
            trouble = f"the turn ended with {type(error).__name__}: {str(error)[-300:]}"
            rows = [Row(one, seed, 0.0, trouble=[trouble]).as_json() for one in planned]
        for row in rows:
            print(json.dumps(row), flush=True)
        return rows

    work = [partial(scenario_rows, first_seed + number, only) for number in range(rounds)]
    work += [partial(turn, first_seed + number) for number in range(turns)]
    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(one) for one in work]
        try:
            return [row for one in running for row in one.result()]
        except BaseException:
            STOPPED.set()
            for one in running:
                one.cancel()
            raise


def scenario_rows(seed: int, only: str) -> Rows:
    """Run all scenarios in a process of their own, which has their environment, print each row, and return the rows.

    Args:
        seed: Of their moments.
        only: Part of a scenario's name; empty for all.
    """
    log = LOGS / f"scenarios-{seed}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with own_disk() as folder, log.open("wb") as stream:
        command = [sys.executable, "-m", "tests.chaos.scenarios", str(folder), "--seed", str(seed), "--only", only]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stream, env=marked(os.environ, folder))
        try:
            while process.poll() is None:
                pause(LOOK_SECONDS)
        except StoppedError:
            process.terminate()
            process.wait(60)
            raise
        finally:
            end_all(folder)
        assert process.stdout
        lines = process.stdout.read().decode().splitlines()
    for line in lines:
        print(line, flush=True)
    if process.returncode:
        raise SystemExit(f"the scenarios ended with {process.returncode}: {log.read_text()[-1000:]}")
    return [json.loads(line) for line in lines]


def main() -> int:
    """Read the command line, run, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of the loop, with a fault in each stage")
    parser.add_argument("--rounds", type=int, default=1, help="how often all scenarios are run")
    parser.add_argument("--seed", type=int, default=FIRST_SEED, help="seed of the first turn and the first round")
    parser.add_argument("--at-once", type=int, default=2, help="turns beside each other")
    parser.add_argument("--only", default="", help="faults with this in their name alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file to write")
    parser.add_argument("--table", type=Path, help="Markdown file whose table is written anew")
    told = parser.parse_args()
    # Where this was started in the background, Ctrl-C is ignored, and would be by every call of the loop.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    try:
        with interrupt_on_termination():
            rows = run(told.turns, told.rounds, told.seed, told.at_once, told.only)
    except (KeyboardInterrupt, StoppedError):
        print("stopped; nothing is left running", file=sys.stderr)
        return 130
    survived, seconds = sum(row["survived"] for row in rows), round(time.monotonic() - began)
    results = {"faults": len(rows), "survived": survived, "seconds": seconds, "rows": rows}
    write_json(told.results, results)
    if told.table:
        write_table(told.table, results)
    print(f"{survived} of {len(rows)} faults survived, {seconds} s; {told.results}")
    return int(survived < len(rows))


if __name__ == "__main__":
    sys.exit(main())

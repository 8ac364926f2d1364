"""Fuzz the parsers of files from outside and the reward server, each for a time, and write runs/fuzz.json.

    python -m tests.fuzz                            # each for 10 minutes
    python -m tests.fuzz --seconds 60 edits weights # two of them for a minute

The parsers are fuzzed by atheris, which `make fuzz` installs, and the server by schemathesis. runs/fuzz.json has a row
{target, seconds, executions, crashes} for each target. A crash is an exception that is no refusal of the input, an
input that takes more than LONGEST_SECONDS of a processor, HANGING_SECONDS in all or MOST_MEGABYTES of memory, the
interpreter's end, or an answer of the server that its schema does not state. Its input and its traceback are in
runs/fuzz/TARGET. What a parser's fuzzing has reached is kept there too, in `corpus`, and the next call goes on from it.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from editloop.content import write_json
from tests.fuzz.targets import TARGETS, scratch_folder

RESULTS = Path("runs/fuzz.json")
FOLDER = Path("runs/fuzz")
SERVER = "reward-server"
NAMES = (*TARGETS, SERVER)
SECONDS = 600
HANGING_SECONDS = 120
"""After so long an input waits for something. One that computes for longer than LONGEST_SECONDS is told before."""
MOST_MEGABYTES = 1024
"""Memory of the process. PyTorch and what it brings take about 260 MiB of it."""
LONGEST_INPUT = 2**15
MOST_STARTS = 20
"""A process ends with a crash of the interpreter, and another goes on; after so many the target is given up."""
EXECUTIONS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
SHOWN = re.compile(r"^#(\d+)\s", re.MULTILINE)
"""How far libFuzzer was, where it could not print its last figures."""


def fuzz_parser(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Fuzz a parser for a time, and return its row.

    Args:
        name: The target.
        seconds: How long.
        folder: Folder of what is found and reached.
    """
    corpus, seeds, log = folder / "corpus", folder / "seeds", folder / "log.txt"
    for left in folder.glob("*"):
        if left != corpus:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    corpus.mkdir(parents=True, exist_ok=True)
    seeds.mkdir()
    for number, seed in enumerate(TARGETS[name].seeds()):
        (seeds / f"{number:03d}").write_bytes(seed)
    began, executions, ended = time.monotonic(), 0, 0
    for _ in range(MOST_STARTS):
        remaining = seconds - int(time.monotonic() - began)
        if remaining <= 0:
            break
        options = {
            "max_total_time": remaining,
            "timeout": HANGING_SECONDS,
            "rss_limit_mb": MOST_MEGABYTES,
            "max_len": LONGEST_INPUT,
            "artifact_prefix": f"{folder}/",
            "print_final_stats": 1,
        }
        with log.open("wb") as stream, tempfile.TemporaryDirectory(dir=scratch_folder()) as scratch:
            command = [sys.executable, "-m", "tests.fuzz.one_target", name, str(folder), scratch]
            command += [f"-{option}={value}" for option, value in options.items()]
            done = subprocess.run([*command, str(corpus), str(seeds)], stdout=stream, stderr=subprocess.STDOUT)
        text = log.read_text(errors="replace")
        counts = EXECUTIONS.findall(text) or SHOWN.findall(text)
        executions += int(counts[-1]) if counts else 0
        if done.returncode == 0:
            break
        ended += 1
        log.rename(folder / f"log-{ended}.txt")
        if not counts:
            raise SystemExit(f"{name}: did not begin; {folder / f'log-{ended}.txt'} says why.")
    crashes = ended + len(list(folder.glob("finding-*.txt")))
    taken = round(time.monotonic() - began)
    return {"target": name, "seconds": taken, "executions": executions, "crashes": crashes}


def fuzz(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Fuzz a target for a time, and return its row.

    Args:
        name: A parser, or SERVER.
        seconds: How long.
        folder: Folder of what is found and reached.
    """
    if name != SERVER:
        return fuzz_parser(name, seconds, folder)
    from tests.fuzz.service import fuzz_server

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    executions, crashes = fuzz_server(seconds, folder)
    return {"target": name, "seconds": seconds, "executions": executions, "crashes": crashes}


def main() -> None:
    """Fuzz the targets one after the other, and exit with 1 where one has crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"targets: {', '.join(NAMES)}; all without")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each target (default: %(default)s)")
    arguments = parser.parse_args()
    crashed: list[str] = []
    if unknown := [name for name in arguments.names if name not in NAMES]:
        raise SystemExit(f"{unknown[0]}: no target; there are {', '.join(NAMES)}.")
    for name in arguments.names or NAMES:
        print(f"{name}: {arguments.seconds} s", flush=True)
        row = fuzz(name, arguments.seconds, FOLDER / name)
        print(f"  {row['executions']:,} executions, {row['crashes']} crashes", flush=True)
        crashed += [name] if row["crashes"] else []
        rows = {row["target"]: row for row in json.loads(RESULTS.read_text())} if RESULTS.is_file() else {}
        rows[name] = row
        write_json(RESULTS, [rows[target] for target in NAMES if target in rows])
    if crashed:
        raise SystemExit(f"{', '.join(crashed)}: inputs and tracebacks are in {FOLDER}/NAME.")


if __name__ == "__main__":
    main()

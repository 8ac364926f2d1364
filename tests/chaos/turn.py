"""A turn of the loop that is broken in every stage, called again each time, and compared with a quiet one."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from tests.chaos.call import COMMAND, DemoCall, end_all, marked, pause
from tests.chaos.faults import FAULTS, Fault, FaultError, NothingThereError, Scene
from tests.chaos.network import LABEL_STUDIO, MLFLOW, Network, network

USUAL_SECONDS = {
    "candidates": 2.0,
    "annotate": 4.0,
    "answers": 2.0,
    "collect": 2.5,
    "dataset": 1.5,
    "reward": 6.0,
    "benchmark": 2.0,
    "promote": 2.0,
    "editor_rl": 10.0,
    "editor_eval": 3.0,
}
"""The stages of a turn, in order, and the seconds after each one's beginning within which its fault comes."""
CALL_SECONDS = 300
"""After so many seconds a user presses Ctrl-C and calls again."""
MOST_CALLS_AFTER_A_FAULT = 2
"""The call that a fault befell, and the one that a user makes after it: it goes on to the end, or to the next fault."""
MOST_CALLS = 30
DISK_GIGABYTES = 2
LOGS = Path("runs") / "chaos"


class Planned(NamedTuple):
    """A fault, and when it comes."""

    fault: Fault
    stage: str
    moment: float
    """Seconds after the beginning of the stage."""


@dataclass
class Row:
    """What became of a fault."""

    planned: Planned
    seed: int
    began: float
    """`time.monotonic` when it came."""
    seconds: float = 0.0
    """From its coming to the next fault's, or to the turn's end."""
    calls: int = 1
    """The call that it befell, and those that were made before the loop was at the next fault, or at its end."""
    trouble: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as a row of the results."""
        row = {
            "fault": self.planned.fault.name,
            "stage": self.planned.stage,
            "moment": self.planned.moment,
            "survived": not self.trouble,
            "seconds": round(self.seconds, 1),
            "calls": self.calls,
            "seed": self.seed,
        }
        return row | ({"trouble": "; ".join(self.trouble)} if self.trouble else {})


def has_bucket(seed: int) -> bool:
    """Return whether a turn keeps its data in a bucket: every second one does.

    Args:
        seed: The turn's seed.
    """
    return seed % 2 == 1


def plan(seed: int, faults: Sequence[Fault] = FAULTS) -> list[Planned]:
    """Return the faults of a turn, one in each stage, in the order of the stages. No kind comes twice where enough fit.

    Args:
        seed: The turn's seed.
        faults: The kinds to choose from.
    """
    chance, chosen = Random(seed), list[Planned]()
    for stage, seconds in USUAL_SECONDS.items():
        fitting = [fault for fault in faults if stage in fault.stages and (has_bucket(seed) or not fault.needs_bucket)]
        fresh = [fault for fault in fitting if fault not in [planned.fault for planned in chosen]]
        if fitting:
            # What only few stages can have comes more often there, so that every kind has its share of a run.
            weights = [1 / len(fault.stages) for fault in fresh or fitting]
            (fault,) = chance.choices(fresh or fitting, weights)
            moment = round(chance.uniform(0, seconds), 2)
            chosen.append(Planned(fault, stage, 0.0 if fault.waits else moment))
    return chosen


@contextmanager
def own_disk() -> Iterator[Path]:
    """Yield an empty folder on a disk of its own, where this process may mount one; else a folder like any other."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"editloop-chaos-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_GIGABYTES}g", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield folder
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)])
        shutil.rmtree(folder, ignore_errors=True)


def has_own_disk() -> bool:
    """Return whether this process may mount one."""
    with own_disk() as disk:
        return disk.is_mount()


@dataclass
class TurnFolder:
    """A turn's folder, and what its calls need."""

    folder: Path
    network: Network
    environment: dict[str, str]
    """All variables of its calls."""
    logs: Path
    calls: int = 0

    @property
    def out(self) -> Path:
        """Folder of the demo."""
        return self.folder / "demo"

    def call(self) -> DemoCall:
        """Call the demo."""
        self.calls += 1
        return DemoCall(self.out, self.logs / f"call-{self.calls}.log", self.environment)

    def note(self, text: str) -> None:
        """Write down what happens, for whoever looks at the turn while it runs.

        Args:
            text: One line.
        """
        with (self.logs / "faults.log").open("a") as stream:
            stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")

    def down(self) -> None:
        """Stop the services, as a user does."""
        command = [sys.executable, "-c", COMMAND, "down", "--services", str(self.out)]
        subprocess.run(command, capture_output=True, env=marked(self.environment, self.out))


@contextmanager
def turn_folder(name: str, *, with_bucket: bool) -> Iterator[TurnFolder]:
    """Yield the folder of a turn. After the block nothing of it runs, and nothing is left but its logs.

    Args:
        name: Name of its logs.
        with_bucket: Whether it keeps its data in a bucket.
    """
    shutil.rmtree(LOGS / name, ignore_errors=True)
    with own_disk() as folder:
        (folder / "tmp").mkdir()
        try:
            with network(folder, with_bucket=with_bucket) as (between, variables):
                environment = {**os.environ, **variables, "TMPDIR": str(folder / "tmp")}
                yield TurnFolder(folder, between, environment, LOGS / name)
        finally:
            end_all(folder / "demo")


def broken_turn(turn: TurnFolder, seed: int, planned: Sequence[Planned], expected: dict[str, Any]) -> list[Row]:
    """Run a turn with faults until its end, and return a row for each that came.

    Args:
        turn: Where it runs.
        seed: Its seed, by which moments within a fault are chosen.
        planned: The faults.
        expected: The quiet run's outcome.
    """
    chance, rows, waiting = Random(seed), list[Row](), list(planned)
    status, call = None, None
    while turn.calls < MOST_CALLS and status != 0:
        for name in {one.fault.proxy for one in waiting} & {LABEL_STUDIO, MLFLOW}:
            turn.network.join(name, turn.environment)
        call = turn.call()
        if rows:
            rows[-1].calls += 1
        while waiting and call.reaches(waiting[0].stage, CALL_SECONDS):
            pause(waiting[0].moment)
            if call.process.poll() is not None:
                break
            _finish(rows)
            row = Row(waiting.pop(0), seed, time.monotonic())
            turn.note(f"call {turn.calls}, {row.planned.stage}: {row.planned.fault.name}")
            try:
                row.planned.fault.apply(Scene(call, turn.network, turn.environment, chance))
            except NothingThereError:
                turn.note("there was nothing to strike")
                continue
            except FaultError as error:
                row.trouble.append(str(error))
            rows.append(row)
        status = call.ends(CALL_SECONDS)
        trouble = _trouble_of(call, status, turn.calls)
        if trouble and rows:
            rows[-1].trouble.append(trouble)
        if rows and rows[-1].calls > MOST_CALLS_AFTER_A_FAULT and status != 0:
            rows[-1].trouble.append(f"call {turn.calls} was not enough: {call.text[-300:]}")
    _finish(rows)
    trouble = "no call ended well" if status != 0 else _trouble_beside(turn) or _difference(turn, expected)
    turn.down()
    if trouble := trouble or _left_over(turn):
        for row in rows:
            row.trouble.append(trouble)
    return rows


def _finish(rows: list[Row]) -> None:
    """Let the last fault's time end."""
    if rows:
        rows[-1].seconds = time.monotonic() - rows[-1].began


def _trouble_of(call: DemoCall, status: int | None, number: int) -> str:
    if status is None:
        call.interrupt()
        return f"call {number} did not end in {CALL_SECONDS} s: {call.text[-300:]}"
    if "Traceback" in call.text:
        return f"call {number} printed a traceback: {call.text[-300:]}"
    return ""


def _trouble_beside(turn: TurnFolder) -> str:
    """Wait for what runs beside the calls."""
    for process, log in turn.network.beside:
        try:
            process.wait(CALL_SECONDS)
        except subprocess.TimeoutExpired:
            return f"a command beside did not end in {CALL_SECONDS} s: {log.read_text()[-300:]}"
        if "Traceback" in log.read_text():
            return f"a command beside printed a traceback: {log.read_text()[-300:]}"
    return ""


def _difference(turn: TurnFolder, expected: dict[str, Any]) -> str:
    found = read_outcome(turn)
    if "error" in found:
        return f"the outcome cannot be read: {found['error']}"
    return "; ".join(
        f"{key} is {found.get(key)}, not {expected[key]}" for key in expected if found.get(key) != expected[key]
    )


def read_outcome(turn: TurnFolder) -> dict[str, Any]:
    """Return a demo's outcome, read in a process of its own: it needs the demo's environment.

    Args:
        turn: The turn, which has ended well.
    """
    code = "import json, sys; from pathlib import Path; from tests.chaos.outcome import outcome; "
    code += "print(json.dumps(outcome(Path(sys.argv[1]))))"
    command = [sys.executable, "-c", code, str(turn.out)]
    read = subprocess.run(command, capture_output=True, text=True, env=marked(turn.environment, turn.out))
    if read.returncode:
        return {"error": read.stderr[-500:]}
    found: dict[str, Any] = json.loads(read.stdout.splitlines()[-1])
    return found


def _left_over(turn: TurnFolder) -> str:
    """What runs or holds a lock after the services were stopped."""
    if commands := end_all(turn.out):
        return f"{len(commands)} processes are left: {commands[0]}"
    for path in turn.out.rglob("*.lock"):
        if path.is_file():
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                return f"{path.relative_to(turn.out)} is still locked"
    return ""


def quiet_turn() -> dict[str, Any]:
    """Run a turn without faults, and return its outcome.

    Raises:
        SystemExit: It failed, which nothing can be compared with.
    """
    with turn_folder("quiet", with_bucket=False) as turn:
        call = turn.call()
        if call.ends(CALL_SECONDS) != 0:
            raise SystemExit(f"the quiet run failed: {call.text[-1000:]}")
        expected = read_outcome(turn)
        turn.down()
    if "error" in expected:
        raise SystemExit(f"the quiet run's outcome cannot be read: {expected['error']}")
    return expected

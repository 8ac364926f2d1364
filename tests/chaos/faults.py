"""What can befall a call of the loop. Each fault is applied once, at a moment that its seed chose."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import psutil

from editloop.processes import quietly
from tests.chaos.call import COMMAND, SERVICES, DemoCall

REFUSAL_SECONDS = 60
"""Most seconds in which a second call in the same folder must refuse."""


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    apply: Callable[[DemoCall, Random], None]
    stages: tuple[str, ...] = ()
    """The stages in which it makes sense; empty for all."""
    needs_own_disk: bool = False
    """Whether it would harm others where the folder is not on a disk of its own."""


class FaultError(Exception):
    """What must not happen while a fault is applied."""


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        quietly(process.kill)


def kill_a_worker(call: DemoCall, chance: Random) -> None:
    """Kill one of the processes that work for the stage: the step, torchrun's agent or a rank."""
    if workers := call.workers():
        _kill([chance.choice(workers)])


def kill_the_newest_worker(call: DemoCall, chance: Random) -> None:
    """Kill the process that was started last: in a training, a rank."""
    _kill(call.workers()[-1:])


def kill_the_warm_worker(call: DemoCall, chance: Random) -> None:
    """Kill the process that steps are forked from."""
    if worker := call.warm_worker():
        _kill([worker])


def kill_the_call(call: DemoCall, chance: Random) -> None:
    """Kill the command itself, as the kernel does where memory runs out."""
    call.process.kill()


def end_the_call(call: DemoCall, chance: Random) -> None:
    """Close the terminal, or end the command as a system does that shuts down."""
    call.process.send_signal(chance.choice([signal.SIGTERM, signal.SIGHUP]))


def interrupt_twice(call: DemoCall, chance: Random) -> None:
    """Press Ctrl-C, and again because it takes too long."""
    call.process.send_signal(signal.SIGINT)
    time.sleep(chance.uniform(0.1, 2.0))
    if call.process.poll() is None:
        call.process.send_signal(signal.SIGINT)


def _kill_service(name: str) -> Callable[[DemoCall, Random], None]:
    def kill(call: DemoCall, chance: Random) -> None:
        _kill(call.service_processes(name))

    return kill


def _pause_service(name: str) -> Callable[[DemoCall, Random], None]:
    def pause(call: DemoCall, chance: Random) -> None:
        _pause(call.service_processes(name), chance.uniform(2.0, 6.0))

    return pause


def pause_the_workers(call: DemoCall, chance: Random) -> None:
    """Stop all processes of the stage for seconds, as on a machine that was put to sleep."""
    _pause(call.workers(), chance.uniform(1.0, 4.0))


def _pause(processes: list[psutil.Process], seconds: float) -> None:
    for process in processes:
        quietly(process.suspend)
    time.sleep(seconds)
    for process in processes:
        quietly(process.resume)


def call_it_a_second_time(call: DemoCall, chance: Random) -> None:
    """Call the demo in the same folder while it runs: it must be refused in one line, without harm to the first."""
    command = [sys.executable, "-c", COMMAND, "demo", "--preset", "smallest", "--out", str(call.out)]
    try:
        second = subprocess.run(command, capture_output=True, text=True, timeout=REFUSAL_SECONDS)
    except subprocess.TimeoutExpired:
        raise FaultError("a second call in the same folder did not refuse") from None
    if second.returncode == 0 or "Traceback" in second.stderr:
        raise FaultError(f"a second call in the same folder ended with {second.returncode}: {second.stderr[-300:]}")


def reconcile_beside_it(call: DemoCall, chance: Random) -> None:
    """Run the reconciler in the demo's folder while the demo works."""
    command = [sys.executable, "-c", COMMAND, "reconcile", "--out", str(call.out)]
    subprocess.run(command, capture_output=True, timeout=10 * REFUSAL_SECONDS)


def cut_the_newest_files(call: DemoCall, chance: Random) -> None:
    """Kill the command, and cut what it wrote last in half, as a power failure does with what was not yet on the disk.

    Only unfinished work is cut: what stands under its final name was on the disk before.
    """
    call.process.kill()
    call.process.wait()
    time.sleep(1)
    files = [path for path in call.out.rglob(".*/**/*") if path.is_file() and ".git" not in path.parts]
    for path in sorted(files, key=lambda path: path.stat().st_mtime)[-3:]:
        os.truncate(path, path.stat().st_size // 2)


def fill_the_disk(call: DemoCall, chance: Random) -> None:
    """Leave no room on the disk until the call ends."""
    filler = call.out.parent / "filler"
    free = psutil.disk_usage(str(call.out.parent)).free
    with filler.open("wb") as stream:
        try:
            os.posix_fallocate(stream.fileno(), 0, max(1, free - chance.randrange(2**20)))
        except OSError:
            pass
    call.ends(120)
    filler.unlink()


FAULTS = (
    Fault("kill a worker of the stage", kill_a_worker),
    Fault("kill the newest worker", kill_the_newest_worker, ("reward", "editor_rl")),
    Fault("kill the process that steps are forked from", kill_the_warm_worker),
    Fault("kill the command", kill_the_call),
    Fault("end the command", end_the_call),
    Fault("Ctrl-C twice", interrupt_twice),
    Fault("kill Label Studio", _kill_service(SERVICES[0]), ("annotate", "answers", "collect")),
    Fault("kill MLflow", _kill_service(SERVICES[1])),
    Fault("pause Label Studio", _pause_service(SERVICES[0]), ("annotate", "answers", "collect")),
    Fault("pause MLflow", _pause_service(SERVICES[1])),
    Fault("pause the workers", pause_the_workers),
    Fault("a second call", call_it_a_second_time),
    Fault("a reconciler beside it", reconcile_beside_it, ("answers", "collect", "reward", "editor_rl")),
    Fault("a power failure", cut_the_newest_files, ("candidates", "collect", "dataset", "reward", "editor_rl")),
    Fault("a full disk", fill_the_disk, needs_own_disk=True),
)

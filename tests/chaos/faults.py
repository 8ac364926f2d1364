"""What can befall a call of the loop. Each fault is applied once, at a moment that its seed chose."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeVar

import httpx
import psutil

from editloop.certificates import shared_certificates
from editloop.content import MANIFEST
from editloop.processes import quietly
from tests.chaos.call import COMMAND, STAGES_OF_A_TURN, DemoCall, marked, pause
from tests.chaos.network import LABEL_STUDIO, MLFLOW, S3, Network
from tests.fault_proxy import Fault as SpoiledAnswers
from tests.fault_proxy import FaultKind

Found = TypeVar("Found")

REFUSAL_SECONDS = 60
"""Most seconds in which a second call in the same folder must refuse."""
FILE_SECONDS = 20.0
"""Most seconds to wait for a file that a stage writes at some time of its own."""
WORKERS_SECONDS = 0.3
"""Time for which the processes that work are those that were found."""
PATIENCE = 8.0
"""Most seconds to wait for what a fault needs: a process, a file, a request."""


@dataclass(frozen=True)
class Scene:
    """What a fault befalls."""

    call: DemoCall
    network: Network
    environment: dict[str, str]
    """All variables of the call."""
    chance: Random


@dataclass(frozen=True)
class Fault:
    """A kind of fault."""

    name: str
    apply: Callable[[Scene], None]
    stages: tuple[str, ...] = STAGES_OF_A_TURN
    """The stages in which it makes sense."""
    needs_own_disk: bool = False
    """Whether it would harm others where the folder is not on a disk of its own."""
    needs_bucket: bool = False
    """Whether it makes sense only where the turn keeps its data in a bucket."""
    waits: bool = False
    """Whether it waits for its moment by itself, from the stage's beginning."""
    proxy: str = ""
    """The service whose answers it spoils."""


class FaultError(Exception):
    """What must not happen while a fault is applied."""


class NothingThereError(Exception):
    """What the fault would strike was not there at its moment: nothing was done."""


WITH_STEPS = tuple(stage for stage in STAGES_OF_A_TURN if stage != "answers")
WITH_LABEL_STUDIO = ("annotate", "answers", "collect")
WITH_RANKS = ("reward", "editor_rl")


def _await(find: Callable[[], Found]) -> Found:
    """What `find` finds, which may be empty at first."""
    end = time.monotonic() + PATIENCE
    while not (found := find()):
        if time.monotonic() > end:
            raise NothingThereError
        pause(0.01)
    return found


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        quietly(process.kill)


def kill_a_worker(scene: Scene) -> None:
    """Kill one of the processes that work for the stage: the step, torchrun's agent or a rank."""
    _kill([scene.chance.choice(_await(scene.call.workers))])


def kill_the_newest_worker(scene: Scene) -> None:
    """Kill the process that was started last: in a training, a rank."""
    _kill(_await(scene.call.workers)[-1:])


def kill_the_warm_worker(scene: Scene) -> None:
    """Kill the process that steps are forked from."""
    if worker := _await(scene.call.warm_worker):
        _kill([worker])


def kill_the_call(scene: Scene) -> None:
    """Kill the command itself, as the kernel does where memory runs out."""
    scene.call.process.kill()


def end_the_call(scene: Scene) -> None:
    """Close the terminal, or end the command as a system does that shuts down."""
    scene.call.process.send_signal(scene.chance.choice([signal.SIGTERM, signal.SIGHUP]))


def interrupt_twice(scene: Scene) -> None:
    """Press Ctrl-C, and again because it takes too long."""
    scene.call.process.send_signal(signal.SIGINT)
    pause(scene.chance.uniform(0.1, 2.0))
    if scene.call.process.poll() is None:
        scene.call.process.send_signal(signal.SIGINT)


def _kill_service(name: str) -> Callable[[Scene], None]:
    def kill(scene: Scene) -> None:
        processes = _await(lambda: scene.call.service_processes(name))
        scene.network.part(name)
        _kill(processes)

    return kill


def _pause_service(name: str) -> Callable[[Scene], None]:
    def stop(scene: Scene) -> None:
        _suspend(_await(lambda: scene.call.service_processes(name)), scene.chance.uniform(2.0, 6.0))

    return stop


def pause_the_workers(scene: Scene) -> None:
    """Stop all processes of the stage for seconds, as on a machine that was put to sleep."""
    _suspend(_await(scene.call.workers), scene.chance.uniform(1.0, 4.0))


def _suspend(processes: list[psutil.Process], seconds: float) -> None:
    for process in processes:
        quietly(process.suspend)
    try:
        pause(seconds)
    finally:
        for process in processes:
            quietly(process.resume)


def _spoil(name: str, kind: FaultKind) -> Callable[[Scene], None]:
    def spoil(scene: Scene) -> None:
        faults = scene.network.proxies[name].faults
        times = scene.chance.randint(1, 3)
        spoiled = SpoiledAnswers("", "", kind, times, seconds=scene.chance.uniform(1.0, 3.0))
        faults[:] = [spoiled]
        try:
            _await(lambda: spoiled.times < times)
        except NothingThereError:
            faults.clear()
            raise

    return spoil


def kill_the_bucket(scene: Scene) -> None:
    """Kill object storage, and bring it back after some seconds."""
    assert scene.network.bucket
    scene.network.bucket.kill()
    try:
        pause(scene.chance.uniform(0.5, 4.0))
    finally:
        scene.network.bucket.start()


def pause_the_bucket(scene: Scene) -> None:
    """Stop object storage for seconds."""
    assert scene.network.bucket
    _suspend([psutil.Process(scene.network.bucket.process.pid)], scene.chance.uniform(2.0, 6.0))


def call_it_a_second_time(scene: Scene) -> None:
    """Call the demo in the same folder while it runs: it must be refused in one line, without harm to the first."""
    command = [sys.executable, "-c", COMMAND, "demo", "--preset", "smallest", "--out", str(scene.call.out)]
    variables = marked(scene.environment, scene.call.out)
    try:
        second = subprocess.run(command, capture_output=True, text=True, timeout=REFUSAL_SECONDS, env=variables)
    except subprocess.TimeoutExpired:
        raise FaultError("a second call in the same folder did not refuse") from None
    if scene.call.process.poll() is None and (second.returncode == 0 or "Traceback" in second.stderr):
        raise FaultError(f"a second call in the same folder ended with {second.returncode}: {second.stderr[-300:]}")


def reconcile_beside_it(scene: Scene) -> None:
    """Run the reconciler in the demo's folder while the demo works: of the two, one waits for the other."""
    command = [sys.executable, "-c", COMMAND, "reconcile", "--once", "--out", str(scene.call.out)]
    variables = marked(scene.environment, scene.call.out)
    log = scene.call.log.with_name(f"{scene.call.log.stem}-reconciler.log")
    with log.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=variables)
    scene.network.beside.append((process, log))


def cut_the_newest_files(scene: Scene) -> None:
    """Kill the command, and cut what it wrote last in half, as a power failure does with what was not yet on the disk.

    Only unfinished work is cut: what stands under its final name was on the disk before.
    """
    _end(scene)
    files = [path for path in scene.call.out.rglob(".*/**/*") if path.is_file() and ".git" not in path.parts]
    for path in sorted(files, key=lambda path: path.stat().st_mtime)[-3:]:
        os.truncate(path, path.stat().st_size // 2)


def truncate_a_checkpoint(scene: Scene) -> None:
    """Kill the command, and cut a file of the newest checkpoint, which looked complete, as a damaged disk does."""

    def find() -> list[Path]:
        folders = (scene.call.out / "checkpoints", scene.call.out / "steps")
        manifests = [path for folder in folders for path in folder.rglob(f"step-*/{MANIFEST}")]
        manifests.sort(key=lambda path: path.stat().st_mtime)
        return [path for path in manifests[-1].parent.rglob("*") if path.name != MANIFEST] if manifests else []

    _halve_and_end(scene, find)


def halve_a_shard(scene: Scene) -> None:
    """Kill the command while the dataset's shards are written, and leave half of one."""
    _halve_and_end(scene, lambda: list((scene.call.out / "steps").glob("*/dataset/.*/**/*.parquet")))


def _halve_and_end(scene: Scene, find: Callable[[], list[Path]]) -> None:
    """Wait for files that are there for a short time only; then cut the largest in half, and kill the command."""
    end = time.monotonic() + FILE_SECONDS
    while scene.call.process.poll() is None and time.monotonic() < end:
        workers, looked = scene.call.workers(), time.monotonic()  # known before, so that they stop at once
        while time.monotonic() < looked + WORKERS_SECONDS:
            if _sizes(find):
                for worker in workers:
                    quietly(worker.suspend)
                if sizes := _sizes(find):
                    largest = max(sizes, key=lambda path: sizes[path])
                    os.truncate(largest, sizes[largest] // 2)
                    _end(scene)
                    return
                for worker in workers:
                    quietly(worker.resume)
            pause(0.005)
    raise NothingThereError


def _sizes(find: Callable[[], list[Path]]) -> dict[Path, int]:
    """The files that are there, and their bytes; none where they are finished or removed just now."""
    try:
        return {path: path.stat().st_size for path in find() if path.is_file()}
    except FileNotFoundError:
        return {}


def _end(scene: Scene) -> None:
    """Kill the command, and wait until its steps have ended, which watch it."""
    workers = scene.call.workers()
    scene.call.process.kill()
    scene.call.process.wait()
    _kill(workers)


def fill_the_disk(scene: Scene) -> None:
    """Leave no room on the disk until the call ends."""
    filler = scene.call.out.parent / "filler"
    free = psutil.disk_usage(str(scene.call.out.parent)).free
    try:
        with filler.open("wb") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, max(1, free - scene.chance.randrange(2**16)))
            except OSError:
                pass
        scene.call.ends(120)
    finally:
        filler.unlink(missing_ok=True)


def revoke_the_token(scene: Scene) -> None:
    """Reset the token by which the loop logs in to Label Studio, as a person does on its page."""
    path = scene.network.home / "credentials.json"
    label_studio = json.loads(path.read_text())[LABEL_STUDIO]
    headers = {"Authorization": f"Token {label_studio['secret']}"}
    address = f"http://127.0.0.1:{label_studio['port']}/api/current-user/reset-token/"
    httpx.post(address, headers=headers, timeout=60, verify=shared_certificates()).raise_for_status()


def jump_the_clock(scene: Scene) -> None:
    """Kill the command, and let all that it has written be of another day, as after the clock was set right."""
    _end(scene)
    jump = scene.chance.choice([-1, 1]) * scene.chance.uniform(1.0, 400.0) * 86400
    for path in scene.call.out.rglob("*"):
        if not path.is_symlink():
            status = path.stat()
            os.utime(path, (status.st_atime + jump, status.st_mtime + jump))


def _answers(service: str, title: str, stages: tuple[str, ...], *, needs_bucket: bool = False) -> list[Fault]:
    kinds: dict[str, FaultKind] = {"answers 500": "error 500", "is slow": "slow", "cuts its answers": "truncate"}
    return [
        Fault(f"{title} {name}", _spoil(service, kind), stages, needs_bucket=needs_bucket, proxy=service)
        for name, kind in kinds.items()
    ]


FAULTS = (
    Fault("a worker of the stage is killed", kill_a_worker, WITH_STEPS),
    Fault("a rank is killed", kill_the_newest_worker, WITH_RANKS),
    Fault("the process that steps are forked from is killed", kill_the_warm_worker, WITH_STEPS),
    Fault("the command is killed", kill_the_call),
    Fault("the terminal closes, or the system shuts down", end_the_call),
    Fault("Ctrl-C twice", interrupt_twice),
    Fault("the workers are paused", pause_the_workers, WITH_STEPS),
    Fault("a second call", call_it_a_second_time),
    Fault("a second reconciler", reconcile_beside_it, ("answers", "collect", "reward", "promote", "editor_rl")),
    Fault("a power failure", cut_the_newest_files, ("candidates", "collect", "dataset", "reward", "editor_rl")),
    Fault("a half-written shard", halve_a_shard, ("dataset",), waits=True),
    Fault("a truncated checkpoint", truncate_a_checkpoint, WITH_RANKS, waits=True),
    Fault("a full disk", fill_the_disk, needs_own_disk=True),
    Fault("the clock jumps", jump_the_clock),
    Fault("Label Studio is killed", _kill_service(LABEL_STUDIO), WITH_LABEL_STUDIO),
    Fault("Label Studio is paused", _pause_service(LABEL_STUDIO), WITH_LABEL_STUDIO),
    Fault("Label Studio's token expires", revoke_the_token, WITH_LABEL_STUDIO),
    *_answers(LABEL_STUDIO, "Label Studio", WITH_LABEL_STUDIO),
    Fault("MLflow is killed", _kill_service(MLFLOW)),
    Fault("MLflow is paused", _pause_service(MLFLOW)),
    *_answers(MLFLOW, "MLflow", STAGES_OF_A_TURN),
    Fault("S3 is killed", kill_the_bucket, WITH_STEPS, needs_bucket=True),
    Fault("S3 is paused", pause_the_bucket, WITH_STEPS, needs_bucket=True),
    *_answers(S3, "S3", WITH_STEPS, needs_bucket=True),
)

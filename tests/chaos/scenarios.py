"""Faults that cannot befall a whole turn cheaply: each in a small scene of the same services and the shipped code.

    python -m tests.chaos.scenarios FOLDER --seed 0 --only "reward server"

prints a row of the results, as JSON, for each. `make test` runs some of them (tests/integration/test_chaos.py), `make
chaos` all.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import psutil

from editloop.content import complete_folder, read_manifest
from editloop.interruption import interrupt_on_termination
from editloop.object_folders import fetch_folder, put_folder
from editloop.object_storage import ObjectFolder
from editloop.processes import quietly
from editloop.scoring.server_client import ServedJudge
from infra.services import start_services, stop_services
from tests.chaos.campaign_scenarios import (
    annotator_submits_during_the_closing,
    clock_ahead_at_a_closing,
    clock_ahead_at_a_failure,
    clock_ahead_at_a_promotion,
    duplicated_webhook,
    late_webhook,
    two_reconcilers,
)
from tests.chaos.differences import DifferenceError, expect_equal
from tests.fault_proxy import Fault, FaultKind, FaultProxy, fault_proxy
from tests.pixel_judge import PixelJudge
from tests.prepared_loop import environment
from tests.s3_server import BUCKET, S3Server
from tests.served_judge import Server, group, served

GROUPS = 20
"""Requests to the reward server, each of about SLOW_SECONDS of work."""
SLOW_SECONDS = 0.1
FOLDERS, FILES = 6, 4
"""Folders that are stored and fetched, and files in each."""


@dataclass(frozen=True)
class Scenario:
    """A fault, and the scene that it befalls."""

    fault: str
    stage: str
    """Which part of the loop the scene is."""
    run: Callable[["Scenes", Path, Random], None]
    """Gets an empty folder and the seed's chance; raises DifferenceError where the outcome is not the quiet one."""
    needs_services: bool = False
    """Whether Label Studio and MLflow must run, with the environment that names them."""


class Scenes(ExitStack):
    """The servers of scenes, each started where it is needed, and ended in the end."""

    def __init__(self, folder: Path):
        """Begin without servers.

        Args:
            folder: For their files.
        """
        super().__init__()
        self._folder = folder

    @cached_property
    def served(self) -> "ServedScene":
        """A reward server."""
        (self._folder / "server").mkdir()
        return self.enter_context(ServedScene(self._folder / "server"))

    @cached_property
    def stored(self) -> "StoredScene":
        """A bucket."""
        return self.enter_context(StoredScene(self._folder / "bucket"))


class ServedScene(ExitStack):
    """A reward server behind a proxy."""

    def __init__(self, folder: Path):
        """Start it.

        Args:
            folder: For its log.
        """
        super().__init__()
        self._folder, self._processes = folder, list[psutil.Process]()
        self.callback(self._expect_no_process)
        self.begin()
        self.proxy = self.enter_context(fault_proxy(self.server.url))

    def begin(self) -> None:
        """Start a server."""
        self.server: Server = self.enter_context(served(self._folder, workers=1, tries=5))
        self._processes += self.tree()

    def tree(self) -> list[psutil.Process]:
        """The server's processes."""
        leader = psutil.Process(self.server.process.pid)
        return [leader, *leader.children(recursive=True)]

    def _expect_no_process(self) -> None:
        alive = psutil.wait_procs(self._processes, timeout=10)[1]
        expect_equal("processes left", [process.cmdline() for process in alive], [])


def _while_scoring(strike: Callable[[ServedScene, Random], None], scenes: Scenes, folder: Path, chance: Random) -> None:
    """Score groups through a server while the fault strikes, and compare with the judge's own scores."""
    groups = [group(seed, edits=2, instruction=f"slow {SLOW_SECONDS}") for seed in range(GROUPS)]
    scene = scenes.served
    judge = ServedJudge(scene.proxy.url, scene.server.judge().settings)
    with _striking(partial(strike, scene, chance), chance.uniform(0.2, 2.0)):
        found = judge.judge(groups)
    expect_equal("scores", found, PixelJudge().judge(groups))


def _kill_a_worker(scene: ServedScene, chance: Random) -> None:
    for worker in scene.server.workers():
        worker.kill()


def _kill_the_server(scene: ServedScene, chance: Random) -> None:
    scene.server.process.kill()
    scene.server.process.wait()
    time.sleep(chance.uniform(0.1, 1.0))
    scene.begin()
    scene.proxy.service = urlsplit(scene.server.url).netloc


def _pause_the_server(scene: ServedScene, chance: Random) -> None:
    _pause(scene.tree(), chance.uniform(1.0, 4.0))


def _spoil_the_server(kind: FaultKind) -> Callable[[ServedScene, Random], None]:
    return lambda scene, chance: _spoil(scene.proxy, "POST", kind, chance)


class StoredScene(ExitStack):
    """A bucket behind a proxy."""

    def __init__(self, folder: Path):
        """Start it.

        Args:
            folder: For its files.
        """
        super().__init__()
        self.bucket = S3Server(folder)
        self.bucket.start()
        self.callback(self.bucket.kill)
        self.proxy = self.enter_context(fault_proxy(self.bucket.environment["AWS_ENDPOINT_URL"]))
        self.environment = {**self.bucket.environment, "AWS_ENDPOINT_URL": self.proxy.url}


def _while_storing(strike: Callable[[StoredScene, Random], None], scenes: Scenes, folder: Path, chance: Random) -> None:
    """Store folders and fetch them while the fault strikes, and compare what came back."""
    sources = []
    for number in range(FOLDERS):
        with complete_folder(folder / f"model-{number}") as made:
            for file in range(FILES):
                (made / f"part-{file}").write_bytes(chance.randbytes(chance.randrange(10**6)))
        sources.append(folder / f"model-{number}")
    scene, address = scenes.stored, f"s3://{BUCKET}/{folder.name}"
    with environment(scene.environment):
        with _striking(partial(strike, scene, chance), chance.uniform(0.0, 0.5)):
            for source in sources:
                fetch_folder(put_folder(source, address), source.with_name(f"{source.name}-back"))
        for source in sources:
            back = read_manifest(source.with_name(f"{source.name}-back"), check=True)
            expect_equal("folder", back, read_manifest(source))
        expect_equal("objects", len(ObjectFolder(address).names()), (FILES + 1) * FOLDERS)
    expect_equal("unfinished folders", [path.name for path in folder.glob(".*")], [])


def _kill_the_bucket(scene: StoredScene, chance: Random) -> None:
    scene.bucket.kill()
    time.sleep(chance.uniform(0.1, 2.0))
    scene.bucket.start()


def _pause_the_bucket(scene: StoredScene, chance: Random) -> None:
    _pause([psutil.Process(scene.bucket.process.pid)], chance.uniform(1.0, 4.0))


def _spoil_the_bucket(kind: FaultKind) -> Callable[[StoredScene, Random], None]:
    return lambda scene, chance: _spoil(scene.proxy, chance.choice(["GET", "PUT"]), kind, chance)


def _spoil(proxy: FaultProxy, method: str, kind: FaultKind, chance: Random) -> None:
    spoiled = Fault(method, "", kind, chance.randint(2, 4), seconds=chance.uniform(0.5, 2.0))
    proxy.faults.append(spoiled)


def _pause(processes: Sequence[psutil.Process], seconds: float) -> None:
    for process in processes:
        quietly(process.suspend)
    time.sleep(seconds)
    for process in processes:
        quietly(process.resume)


@contextmanager
def _striking(strike: Callable[[], None], moment: float) -> Iterator[None]:
    """Let a fault strike some seconds after the block's beginning. The block ends after it, with its errors."""
    errors = list[BaseException]()

    def wait_and_strike() -> None:
        time.sleep(moment)
        try:
            strike()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=wait_and_strike)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]


def _campaign(run: Callable[[Path, Random], None]) -> Callable[[Scenes, Path, Random], None]:
    """A scene with Label Studio and MLflow, which the environment names."""
    return lambda scenes, folder, chance: run(folder, chance)


KINDS: dict[str, FaultKind] = {"answers 500": "error 500", "is slow": "slow", "cuts its answers": "truncate"}
SCENARIOS = (
    Scenario("a worker of the reward server is killed", "scoring", partial(_while_scoring, _kill_a_worker)),
    Scenario("the reward server is killed", "scoring", partial(_while_scoring, _kill_the_server)),
    Scenario("the reward server is paused", "scoring", partial(_while_scoring, _pause_the_server)),
    *(
        Scenario(f"the reward server {name}", "scoring", partial(_while_scoring, _spoil_the_server(kind)))
        for name, kind in KINDS.items()
    ),
    Scenario("S3 is killed", "storing", partial(_while_storing, _kill_the_bucket)),
    Scenario("S3 is paused", "storing", partial(_while_storing, _pause_the_bucket)),
    *(
        Scenario(f"S3 {name}", "storing", partial(_while_storing, _spoil_the_bucket(kind)))
        for name, kind in KINDS.items()
    ),
    Scenario(
        "an annotator submits during the closing", "closing", _campaign(annotator_submits_during_the_closing), True
    ),
    Scenario("two reconcilers", "closing", _campaign(two_reconcilers), True),
    Scenario("a duplicated webhook", "closing", _campaign(duplicated_webhook), True),
    Scenario("a late webhook", "closing", _campaign(late_webhook), True),
    Scenario("the clock was ahead at a closing", "closing", _campaign(clock_ahead_at_a_closing), True),
    Scenario("the clock was ahead at a failed pass", "closing", _campaign(clock_ahead_at_a_failure), True),
    Scenario("the clock was ahead at a promotion", "promote", _campaign(clock_ahead_at_a_promotion), True),
)


def run_scenario(scenario: Scenario, scenes: Scenes, seed: int, folder: Path) -> dict[str, Any]:
    """Run a scenario, and return its row of the results.

    Args:
        scenario: The scenario.
        scenes: The servers of scenes.
        seed: Of its moments.
        folder: An empty folder.
    """
    began, trouble = time.monotonic(), ""
    try:
        scenario.run(scenes, folder, Random(seed))
    except DifferenceError as difference:
        trouble = str(difference)
    except Exception as error:
        trouble = f"{type(error).__name__}: {error}"
    row = {
        "fault": scenario.fault,
        "stage": scenario.stage,
        "moment": None,
        "survived": not trouble,
        "seconds": round(time.monotonic() - began, 1),
        "calls": 1,
        "seed": seed,
    }
    return row | ({"trouble": trouble} if trouble else {})


def main() -> int:
    """Run scenarios with services of their own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="an empty folder for all that they write")
    parser.add_argument("--seed", type=int, default=0, help="of their moments")
    parser.add_argument("--only", default="", help="scenarios with this in their name alone")
    told = parser.parse_args()
    scenarios, home = [one for one in SCENARIOS if told.only in one.fault], told.folder / "services"
    with interrupt_on_termination(), Scenes(told.folder) as scenes:
        if any(scenario.needs_services for scenario in scenarios):
            scenes.callback(stop_services, home)
            os.environ.update(start_services(home).environment)
        for number, scenario in enumerate(scenarios):
            folder = told.folder / f"scene-{told.seed}-{number}"
            folder.mkdir()
            with redirect_stdout(sys.stderr):
                row = run_scenario(scenario, scenes, told.seed, folder)
            print(json.dumps(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

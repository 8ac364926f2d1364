"""Retries, kills, twins and an MLflow that goes away: one run a step all the same, and nothing of it is lost."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow.entities import Param, RunTag

from editloop.lineage import tracking
from infra.services import Services
from tests.gateway import Gateway, gateway

STEP = """
import sys, time
from pathlib import Path
from editloop.lineage import tracking
with tracking.stage_run("reward", "train-reward", sys.argv[1], {}, {"seed": 1}) as run:
    Path(sys.argv[2]).write_text(run.run_id)
    time.sleep(float(sys.argv[3]))
    run.finish({"loss": 0.5}, {})
"""


def step(name: str, told: Path, seconds: float) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", STEP, name, str(told), str(seconds)])


def statuses(name: str, stage: str = "reward") -> list[str]:
    return [run.info.status for run in tracking.find_runs(pipeline_run=name, stage=stage)]


def test_a_step_that_was_killed_is_found_again(mlflow_environment: Services, tmp_path: Path) -> None:
    first = step("killed", tmp_path / "first", 600)
    while not (tmp_path / "first").is_file():
        assert first.poll() is None
        time.sleep(0.1)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert statuses("killed") == ["RUNNING"]
    assert step("killed", tmp_path / "second", 0).wait() == 0
    assert (tmp_path / "second").read_text() == (tmp_path / "first").read_text()
    assert statuses("killed") == ["FINISHED"]


def test_twins_that_begin_at_once_share_one_run(mlflow_environment: Services, tmp_path: Path) -> None:
    twins = [step("twins", tmp_path / str(number), 1) for number in range(3)]
    assert [twin.wait() for twin in twins] == [0, 0, 0]
    assert len({(tmp_path / str(number)).read_text() for number in range(3)}) == 1
    assert statuses("twins") == ["FINISHED"]
    parents = tracking.find_runs(pipeline_run="twins", pipeline="train-reward")
    assert len(parents) == 1


def test_twins_log_the_same_facts_at_once(mlflow_environment: Services) -> None:
    """As often as it takes for two of them to look before either writes."""
    api = tracking.client()
    with ThreadPoolExecutor(8) as pool:
        for seed in range(8):
            run_id = api.create_run("0").info.run_id
            begin = threading.Barrier(8)

            def log(run_id: str, begin: threading.Barrier, seed: int) -> None:
                begin.wait()
                tracking.log_batch(
                    api, run_id, params=[Param("seed", str(seed))], tags=[RunTag("editloop.input.data", str(seed))]
                )

            for twin in [pool.submit(log, run_id, begin, seed) for _ in range(8)]:
                twin.result()
            found = api.get_run(run_id).data
            assert (found.params["seed"], found.tags["editloop.input.data"]) == (str(seed), str(seed))


def test_runs_are_found_by_the_page_and_whatever_their_names(
    mlflow_environment: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "Ada's turn"
    for seed in range(5):
        with tracking.stage_run("dataset", "train-reward", name, {}, {"seed": seed}) as run:
            run.finish({}, {})
    monkeypatch.setattr(tracking, "PAGE", 2)
    found = tracking.find_runs(pipeline_run=name, stage="dataset")
    assert len(found) == len({run.info.run_id for run in found}) == 5
    assert [run.info.run_id for run in tracking.find_runs(pipeline_run=name, stage="dataset", limit=3)] == [
        run.info.run_id for run in found[:3]
    ]
    gone = found[0].info.run_id
    tracking.client().delete_run(gone)
    assert len(tracking.find_runs(pipeline_run=name, stage="dataset", finished=True)) == 4
    assert [run.info.run_id for run in tracking.find_runs(pipeline_run=name, stage="dataset", deleted=True)] == [gone]


@pytest.fixture
def mlflow(mlflow_environment: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """The way to MLflow, which may be closed; the environment names it."""
    with gateway(mlflow_environment.mlflow.url) as door:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", door.url)
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        yield door


def test_mlflow_that_goes_away_during_a_step_gets_all_of_it_later(mlflow: Gateway, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<title>curves</title>")
    with tracking.stage_run("reward", "train-reward", "outage", {}, {"seed": 1}) as run:
        mlflow.close()
        threading.Timer(2, mlflow.open).start()
        run.finish({"loss": 0.25}, {}, files=[page], tags={"verdict": "promote"})
    (found,) = tracking.find_runs(pipeline_run="outage", stage="reward")
    assert (found.info.run_id, found.info.status) == (run.run_id, "FINISHED")
    assert found.data.metrics["loss"] == 0.25
    assert found.data.tags["editloop.verdict"] == "promote"
    assert [one.path for one in tracking.client().list_artifacts(run.run_id)] == ["page.html"]


def test_a_step_waits_for_mlflow_before_it_begins(mlflow: Gateway) -> None:
    mlflow.close()
    threading.Timer(2, mlflow.open).start()
    with tracking.stage_run("reward", "train-reward", "late", {}, {}) as run:
        run.finish({}, {})
    assert statuses("late") == ["FINISHED"]


def test_who_ends_a_step_does_not_wait_and_patience_has_an_end(
    mlflow: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = time.monotonic()

    def interrupted() -> None:
        nonlocal begun
        with tracking.stage_run("reward", "train-reward", "ended", {}, {}):
            mlflow.close()
            begun = time.monotonic()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begun < 60, "far less than EDITLOOP_MLFLOW_PATIENCE"
    monkeypatch.setenv("EDITLOOP_MLFLOW_PATIENCE", "0")
    with pytest.raises(Exception, match="Connection refused"), tracking.stage_run("reward", "p", "never", {}, {}):
        pytest.fail("the step began without a record")
    mlflow.open()
    assert statuses("ended") == ["RUNNING"]
    with tracking.stage_run("reward", "train-reward", "ended", {}, {}) as run:
        run.finish({}, {})
    assert statuses("ended") == ["FINISHED"]

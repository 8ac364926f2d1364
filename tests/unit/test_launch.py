"""Launching: ranks run and end together, failures say why, and the cluster's job is the same command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from kubernetes.client.exceptions import ApiException

from editloop.errors import EditLoopError
from editloop.training.launch import torchrun_arguments
from infra import trainjob
from infra.launch import LaunchSettings, launch
from infra.trainjob import run_trainjob, trainjob_manifest

RANK = """
import os, sys, time
sys.stdout.write(f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']} {sys.argv[1]}\\n")
if sys.argv[1] == "fail":
    sys.exit("the disk is full")
if sys.argv[1] == "sleep":
    open(sys.argv[2] + os.environ["RANK"], "w").write(str(os.getpid()))
    time.sleep(600)
"""


@pytest.fixture
def rank_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.needs_torch
def test_all_ranks_run_and_the_log_keeps_what_they_said(rank_module: Path) -> None:
    launch("a_rank", ["go"], processes=2, log=rank_module / "log")
    assert sorted(line for line in (rank_module / "log").read_text().splitlines() if line.startswith("rank")) == [
        "rank 0 of 2 go",
        "rank 1 of 2 go",
    ]


@pytest.mark.needs_torch
def test_a_failed_rank_is_an_error_with_its_own_words(rank_module: Path) -> None:
    with pytest.raises(EditLoopError, match="the disk is full") as raised:
        launch("a_rank", ["fail"], processes=2)
    assert "elastic_launch" not in str(raised.value)


@pytest.mark.needs_torch
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_ranks_end_when_the_launching_process_is_killed(rank_module: Path) -> None:
    call = f"from infra.launch import launch; launch('a_rank', ['sleep', {str(rank_module / 'pid')!r}], processes=2)"
    launcher = subprocess.Popen([sys.executable, "-c", call], stdout=subprocess.DEVNULL)
    pids = [rank_module / f"pid{rank}" for rank in range(2)]
    _until(lambda: all(path.is_file() and path.read_text() for path in pids), 60)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    _until(lambda: not any(_alive(int(path.read_text())) for path in pids), 60)


def test_a_step_ends_with_the_process_that_supervises_it() -> None:
    supervisor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    call = "from editloop.processes import end_with_supervisor; end_with_supervisor(); import time; time.sleep(600)"
    step = subprocess.Popen(
        [sys.executable, "-c", call], env=os.environ | {"EDITLOOP_SUPERVISOR_PID": str(supervisor.pid)}
    )
    time.sleep(1)
    assert step.poll() is None
    supervisor.kill()
    supervisor.wait()
    assert step.wait(timeout=30) != 0


def test_the_jobs_name_follows_from_what_it_does() -> None:
    settings = LaunchSettings()
    job = trainjob_manifest(torchrun_arguments("m", ["--seed", "1"], 4), 4, settings)
    same = trainjob_manifest(torchrun_arguments("m", ["--seed", "1"], 4), 4, settings)
    other = trainjob_manifest(torchrun_arguments("m", ["--seed", "2"], 4), 4, settings)
    assert job == same
    assert job["metadata"]["name"] != other["metadata"]["name"]
    assert job["spec"]["trainer"]["command"] == ["python", *torchrun_arguments("m", ["--seed", "1"], 4)]


class Cluster:
    """The Kubernetes API as far as a TrainJob needs it; `states` are what it answers, one a look."""

    def __init__(self, states: list[dict], taken: bool = False):
        self.states, self.taken, self.created = states, taken, 0

    def create_namespaced_custom_object(self, **arguments: object) -> None:
        if self.taken:
            raise ApiException(status=409)
        self.created += 1

    def get_namespaced_custom_object(self, **arguments: object) -> dict:
        if not self.states:
            raise ApiException(status=404)
        return {"status": {"conditions": [self.states.pop(0)]}}


class FullCluster(Cluster):
    """One that a failed job lies in, and that takes a look's time to delete it."""

    def __init__(self, states: list[dict]):
        super().__init__([FAILED], taken=True)
        self.after, self.deleted = states, 0

    def delete_namespaced_custom_object(self, **arguments: object) -> None:
        self.deleted += 1

    def create_namespaced_custom_object(self, **arguments: object) -> None:
        super().create_namespaced_custom_object(**arguments)
        self.states = self.after

    def get_namespaced_custom_object(self, **arguments: object) -> dict:
        if self.deleted and not self.created:
            self.taken = False
        return super().get_namespaced_custom_object(**arguments)


class Pods:
    """The pods of a job: `looks` are what each look finds, as (name, waiting reason); `logs` their lines."""

    def __init__(self, *looks: list[tuple[str, str]], logs: dict[str, list[str]] | None = None):
        self.looks, self.logs = list(looks), logs or {}

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        assert label_selector == f"jobset.sigs.k8s.io/jobset-name={JOB['metadata']['name']}"
        found = self.looks.pop(0) if len(self.looks) > 1 else [*self.looks, []][0]
        return SimpleNamespace(items=[self.pod(name, reason) for name, reason in found])

    @staticmethod
    def pod(name: str, reason: str) -> Any:
        waiting = SimpleNamespace(reason=reason, message="no such image") if reason else None
        status = SimpleNamespace(state=SimpleNamespace(waiting=waiting))
        return SimpleNamespace(
            metadata=SimpleNamespace(name=name), status=SimpleNamespace(container_statuses=[status], conditions=[])
        )

    def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> str:
        lines = self.logs.get(name, [])
        return "".join(f"2026-01-01T00:00:{number:02d}Z {line}\n" for number, line in enumerate(lines))


JOB = trainjob_manifest(torchrun_arguments("m", [], 1), 1, LaunchSettings())
RUNNING = {"type": "Suspended", "status": "False"}
COMPLETE = {"type": "Complete", "status": "True"}
FAILED = {"type": "Failed", "status": "True", "reason": "OOM", "message": "killed"}


@pytest.mark.parametrize("taken", [False, True])
def test_a_job_is_made_or_found_and_waited_for(taken: bool) -> None:
    cluster = Cluster([RUNNING, RUNNING, COMPLETE], taken)
    run_trainjob(JOB, cluster, Pods(), poll_seconds=0)
    assert cluster.created == (0 if taken else 1)
    assert cluster.states == []


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([RUNNING, FAILED], "OOM: killed"),
        ([RUNNING], "deleted before it ended"),
    ],
)
def test_every_other_end_of_a_job_is_an_error(states: list[dict], words: str) -> None:
    with pytest.raises(EditLoopError, match=words):
        run_trainjob(JOB, Cluster(states), Pods(), poll_seconds=0)


def test_a_failed_job_of_an_earlier_try_is_made_anew_but_only_once() -> None:
    cluster = FullCluster([RUNNING, COMPLETE])
    run_trainjob(JOB, cluster, Pods(), poll_seconds=0)
    assert (cluster.deleted, cluster.created) == (1, 1)
    again = FullCluster([RUNNING, FAILED])
    with pytest.raises(EditLoopError, match="goes on at the last checkpoint"):
        run_trainjob(JOB, again, Pods(), poll_seconds=0)
    assert (again.deleted, again.created) == (1, 1)


def test_a_complete_job_whose_result_is_gone_is_made_anew(tmp_path: Path) -> None:
    result = tmp_path / "training.json"
    again = FullCluster([RUNNING, COMPLETE])
    again.states = [COMPLETE]
    run_trainjob(JOB, again, Pods(), poll_seconds=0, result=result)
    assert (again.deleted, again.created) == (1, 1)
    result.write_text("{}")
    complete = Cluster([COMPLETE], taken=True)
    run_trainjob(JOB, complete, Pods(), poll_seconds=0, result=result)
    assert complete.created == 0


def test_the_lines_of_the_pods_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    pods = Pods([("rank-0", "")], logs={"rank-0": ["step 1: loss 0.5", "step 2: loss 0.4"]})
    run_trainjob(JOB, Cluster([RUNNING, RUNNING, COMPLETE]), pods, poll_seconds=0)
    assert capsys.readouterr().out == "step 1: loss 0.5\nstep 2: loss 0.4\n"


def test_a_pod_that_cannot_start_is_reported_and_ends_the_job(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [("rank-0", "ImagePullBackOff")]
    run_trainjob(JOB, Cluster([RUNNING, RUNNING, COMPLETE]), Pods(waits, waits, []), poll_seconds=0)
    assert caplog.text.count("rank-0 does not start: ImagePullBackOff: no such image") == 1
    monkeypatch.setattr(trainjob, "STUCK_SECONDS", 0.0)
    stuck = FullCluster([RUNNING] * 3)
    stuck.taken = False
    with pytest.raises(EditLoopError, match="cannot start: rank-0: ImagePullBackOff: no such image"):
        run_trainjob(JOB, stuck, Pods(waits), poll_seconds=0)
    assert stuck.deleted == 1, "it would wait for ever"


def test_an_interrupt_deletes_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FullCluster([RUNNING] * 3)
    cluster.taken = False

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(trainjob.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_trainjob(JOB, cluster, Pods(), poll_seconds=0)
    assert cluster.deleted == 1


@pytest.mark.parametrize(
    ("status", "cure"), [(403, "Bind the role editloop-trainjobs"), (404, "Install Kubeflow Trainer v2")]
)
def test_a_cluster_that_refuses_is_told_with_its_cure(status: int, cure: str) -> None:
    class Refusing(Cluster):
        def create_namespaced_custom_object(self, **arguments: object) -> None:
            raise ApiException(status=status, reason="no")

    with pytest.raises(EditLoopError, match=cure):
        run_trainjob(JOB, Refusing([]), Pods(), poll_seconds=0)


def test_pods_share_the_ranks_and_get_resources_and_secrets_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = LaunchSettings(
        trainjob_nodes=2,
        trainjob_resources={"nvidia.com/gpu": "4"},
        trainjob_secrets={"MLFLOW_TRACKING_PASSWORD": ("mlflow", "password")},
        pod_name="step",
        pod_uid="u-1",
    )
    job = trainjob_manifest(torchrun_arguments("m", [], 4), 8, settings)
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"]["limits"] == {"nvidia.com/gpu": "4"}
    secret = {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "password"}}}
    assert secret in trainer["env"]
    assert job["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "u-1"}]
    with pytest.raises(EditLoopError, match="7 processes on 2 nodes"):
        trainjob_manifest([], 7, settings)


def test_pods_learn_which_run_they_report_to_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLOOP_STAGE_RUN", "r1")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    job = trainjob_manifest(torchrun_arguments("m", [], 2), 2, LaunchSettings())
    passed = {one["name"]: one["value"] for one in job["spec"]["trainer"]["env"]}
    assert passed["EDITLOOP_STAGE_RUN"] == "r1"
    assert "hidden" not in str(job)
    assert job["metadata"] == trainjob_manifest(torchrun_arguments("m", [], 2), 2, LaunchSettings())["metadata"]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _until(holds, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.1)

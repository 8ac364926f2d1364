"""TrainJobs: what Kubernetes gets, and what becomes of each of its answers."""

import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from kubernetes.client.exceptions import ApiException
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, ReadTimeoutError

from editloop.errors import EditLoopError
from editloop.interruption import interrupt_on_termination
from editloop.object_storage import StorageError
from infra import trainjob as module
from infra import trainjob_node, trainjob_pods
from infra.cluster_access import ClusterAwayError
from infra.launch import LaunchSettings
from infra.trainjob import TrainJobRun, TrainJobSettings, trainjob
from infra.trainjob_files import HEARTBEAT

ADDRESS = "s3://editloop/objects/0123"
SETTINGS = TrainJobSettings(trainjob_poll_seconds=1e-6)
JOB = trainjob(ADDRESS, 1, SETTINGS)
RUNNING = {"type": "Suspended", "status": "False"}
COMPLETE = {"type": "Complete", "status": "True"}
FAILED = {"type": "Failed", "status": "True", "reason": "JobsFailed", "message": "a job failed"}


class Cluster:
    """Kubernetes' objects as far as a TrainJob needs them: the answers to the looks at each job that is created.

    Args:
        jobs: For each creation, the conditions that the looks find.
        earlier: Conditions of the looks at a job that is there already.
    """

    def __init__(self, *jobs: list[dict], earlier: list[dict] | None = None):
        self.jobs, self.job = list(jobs), earlier
        self.created, self.deleted = 0, 0

    def create_namespaced_custom_object(self, *, body: dict, **resource: str) -> None:
        assert TrainerV1alpha1TrainJob.from_dict(body).to_dict() == body, "a field that the API does not know"
        if self.job is not None:
            raise ApiException(status=409)
        self.created += 1
        self.job = self.jobs.pop(0)

    def get_namespaced_custom_object(self, **resource: str) -> dict:
        if not self.job:
            self.job = None
            raise ApiException(status=404)
        return {"metadata": {}, "status": {"conditions": [self.job.pop(0)]}}

    def delete_namespaced_custom_object(self, *, propagation_policy: str, **resource: str) -> None:
        assert propagation_policy == "Foreground", "its pods end before a job of the same name begins"
        self.deleted += 1
        self.job = None


def pod(name: str, waiting: str = "", **states: Any) -> Any:
    """A pod as the client returns it.

    Args:
        name: Its name.
        waiting: Why its container waits.
        **states: `exit_code` and `finished_at` of a container that ended, `disrupted_at`, `deleted_at`.
    """
    state = SimpleNamespace(waiting=None, terminated=None)
    if waiting:
        state.waiting = SimpleNamespace(reason=waiting, message="no such image")
    if "exit_code" in states:
        state.terminated = SimpleNamespace(
            reason="Error", exit_code=states["exit_code"], finished_at=states.get("finished_at", NOW)
        )
    disruption = SimpleNamespace(
        type="DisruptionTarget",
        status="True",
        reason="PreemptionByScheduler",
        last_transition_time=states.get("disrupted_at"),
    )
    return SimpleNamespace(
        metadata=SimpleNamespace(
            name=name, deletion_timestamp=states.get("deleted_at"), deletion_grace_period_seconds=30
        ),
        status=SimpleNamespace(
            container_statuses=[SimpleNamespace(state=state)],
            conditions=[disruption] if "disrupted_at" in states else [],
            reason=None,
        ),
    )


NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Pods:
    """The pods of a job: what each look finds, the last one again and again; `logs` are their lines."""

    def __init__(self, *looks: list[Any], logs: dict[str, list[str]] | None = None):
        self.looks, self.logs = list(looks), logs or {}

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        assert label_selector == f"jobset.sigs.k8s.io/jobset-name={JOB.metadata.name}"
        found = self.looks.pop(0) if len(self.looks) > 1 else [*self.looks, []][0]
        return SimpleNamespace(items=found)

    def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> str:
        lines = self.logs.get(name, [])
        return "".join(f"2026-01-01T00:00:{number:02d}Z {line}\n" for number, line in enumerate(lines))


def wait(cluster: Cluster, pods: Pods | None = None, *, delivered: bool = True, retries: int = 2) -> None:
    settings = SETTINGS.model_copy(update={"trainjob_retries": retries})
    beats: list[None] = []
    TrainJobRun(
        JOB, cluster, pods or Pods(), settings, is_delivered=lambda: delivered, beat=lambda: beats.append(None)
    ).wait()
    assert beats, "the pods would end, thinking that nobody waits for them"


def test_a_jobs_name_follows_from_its_work_and_its_image() -> None:
    assert trainjob(ADDRESS, 1, SETTINGS) == JOB
    assert trainjob("s3://editloop/objects/4567", 1, SETTINGS).metadata.name != JOB.metadata.name
    other = SETTINGS.model_copy(update={"image": "editloop:2"})
    assert trainjob(ADDRESS, 1, other).metadata.name != JOB.metadata.name
    assert JOB.spec.trainer.command == ["python", "-m", "infra.trainjob_node", ADDRESS]


def test_pods_share_the_ranks_and_get_resources_and_secrets_by_name() -> None:
    settings = LaunchSettings(
        trainjob_nodes=2,
        trainjob_resources={"nvidia.com/gpu": "4"},
        trainjob_secrets={"MLFLOW_TRACKING_PASSWORD": ("mlflow", "password")},
        trainjob_pod={"nodeSelector": {"pool": "gpu"}, "containers": [{"name": "node", "volumeMounts": []}]},
        pod_name="step",
        pod_uid="u-1",
    )
    job = trainjob(ADDRESS, 8, settings).to_dict()
    trainer = job["spec"]["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"] == {"limits": {"nvidia.com/gpu": "4"}, "requests": {"nvidia.com/gpu": "4"}}
    secret = {"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "mlflow", "key": "password"}}}
    assert secret in trainer["env"]
    assert job["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Pod", "name": "step", "uid": "u-1"}]
    (patch,) = job["spec"]["runtimePatches"]
    (ranks,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert ranks["name"] == "node", "the job of the runtimes for torch"
    assert ranks["template"]["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "gpu"}
    with pytest.raises(EditLoopError, match="7 processes on 2 nodes"):
        trainjob(ADDRESS, 7, settings)


def test_pods_learn_which_run_they_report_to_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITLOOP_STAGE_RUN", "r1")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "hidden")
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "not named")
    monkeypatch.setenv("EDITLOOP_TRAINJOB_VARIABLES", '["NCCL_SOCKET_IFNAME", "HTTPS_PROXY", "EDITLOOP_STAGE_RUN"]')
    settings = TrainJobSettings(trainjob_secrets={"MLFLOW_TRACKING_PASSWORD": ("mlflow", "password")})
    job = trainjob(ADDRESS, 2, settings).to_dict()
    environment = job["spec"]["trainer"]["env"]
    assert environment[:2] == [
        {"name": "EDITLOOP_STAGE_RUN", "value": "r1"},
        {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
    ]
    assert [entry["name"] for entry in environment[2:]] == ["MLFLOW_TRACKING_PASSWORD"]
    assert "hidden" not in str(job)
    assert job["metadata"]["name"] == JOB.metadata.name


def test_a_job_is_created_and_waited_for() -> None:
    cluster = Cluster([RUNNING, RUNNING, COMPLETE])
    wait(cluster)
    assert (cluster.created, cluster.deleted, cluster.job) == (1, 0, [])


def test_a_job_of_an_earlier_try_is_found_and_waited_for() -> None:
    cluster = Cluster(earlier=[RUNNING, COMPLETE])
    wait(cluster)
    assert (cluster.created, cluster.deleted, cluster.job) == (0, 0, [])


@pytest.mark.parametrize("ended", [FAILED, COMPLETE])
def test_a_job_of_an_earlier_try_that_left_no_result_is_made_anew(ended: dict) -> None:
    cluster = Cluster([RUNNING, COMPLETE], earlier=[ended])
    results = iter([False, True] if ended is COMPLETE else [True])
    TrainJobRun(JOB, cluster, Pods(), SETTINGS, is_delivered=lambda: next(results), beat=lambda: None).wait()
    assert (cluster.created, cluster.deleted) == (1, 1)


@pytest.mark.parametrize(
    ("states", "words"),
    [
        ([RUNNING, FAILED], "failed: JobsFailed: a job failed"),
        ([RUNNING], "deleted before it ended"),
        ([COMPLETE], "ended without a result"),
    ],
)
def test_every_other_end_of_a_job_is_an_error(states: list[dict], words: str) -> None:
    cluster = Cluster(states)
    with pytest.raises(EditLoopError, match=words):
        wait(cluster, delivered=False)
    assert cluster.created == 1


def test_a_rank_that_fails_is_an_error_with_the_reason_of_its_pod() -> None:
    ended = [pod("rank-0", exit_code=137), pod("rank-1", deleted_at=NOW + timedelta(seconds=31))]
    cluster = Cluster([RUNNING, FAILED])
    with pytest.raises(EditLoopError, match=r"failed: rank-0: Error, exit code 137\. .*goes on at the last checkpoint"):
        wait(cluster, Pods([pod("rank-0")], ended))
    assert cluster.created == 1, "the same again would fail again"


@pytest.mark.parametrize(
    "lost",
    [
        [],
        [pod("rank-0", deleted_at=NOW + timedelta(seconds=29)), pod("rank-1", exit_code=1)],
        [pod("rank-0", exit_code=143, disrupted_at=NOW - timedelta(seconds=1))],
    ],
    ids=["gone", "being deleted", "preempted"],
)
def test_a_training_whose_pod_was_lost_goes_on_in_another_job(lost: list[Any]) -> None:
    cluster = Cluster([RUNNING, FAILED], [RUNNING, COMPLETE])
    wait(cluster, Pods([pod("rank-0"), pod("rank-1")], lost, [pod("rank-0"), pod("rank-1")]))
    assert (cluster.created, cluster.deleted) == (2, 1)


def test_jobs_for_lost_pods_are_bounded() -> None:
    cluster = Cluster([FAILED], [FAILED], [FAILED])
    with pytest.raises(EditLoopError, match="rank-0: PreemptionByScheduler"):
        wait(cluster, Pods([pod("rank-0", disrupted_at=NOW)]), retries=2)
    assert cluster.created == 3


def test_the_lines_of_the_pods_are_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    pods = Pods([pod("rank-0")], logs={"rank-0": ["step 1: loss 0.5", "step 2: loss 0.4"]})
    wait(Cluster([RUNNING, RUNNING, COMPLETE]), pods)
    assert capsys.readouterr().out == "step 1: loss 0.5\nstep 2: loss 0.4\n"


def test_a_pod_that_cannot_start_is_reported_and_ends_the_job(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = [pod("rank-0", "ImagePullBackOff")]
    wait(Cluster([RUNNING, RUNNING, COMPLETE]), Pods(waits, waits, []))
    assert caplog.text.count("rank-0 does not start: ImagePullBackOff: no such image") == 1
    monkeypatch.setattr(trainjob_pods, "STUCK_SECONDS", 0.0)
    stuck = Cluster([RUNNING] * 3)
    with pytest.raises(EditLoopError, match="cannot start: rank-0: ImagePullBackOff: no such image"):
        wait(stuck, Pods(waits))
    assert stuck.deleted == 1, "it would wait for ever"


def test_an_interrupt_deletes_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster([RUNNING] * 3)

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wait(cluster)
    assert cluster.deleted == 1


@pytest.mark.parametrize(
    ("status", "cure"), [(403, "Bind the role editloop-trainjobs"), (404, "Install Kubeflow Trainer v2")]
)
def test_a_cluster_that_refuses_is_told_with_its_cure(status: int, cure: str) -> None:
    class Refusing(Cluster):
        def create_namespaced_custom_object(self, **arguments: Any) -> None:
            raise ApiException(status=status, reason="no")

    with pytest.raises(EditLoopError, match=cure):
        wait(Refusing([]))


class Faults:
    """What every call asks first: each of the next ones fails, as often as `left` says."""

    def __init__(self, error: Exception, left: int):
        self.error, self.left = error, left

    def __call__(self) -> None:
        if self.left:
            self.left -= 1
            raise self.error


class FaultyCluster(Cluster):
    """A cluster whose API server fails from time to time."""

    def __init__(self, faults: Faults, *jobs: list[dict]):
        super().__init__(*jobs)
        self.faults = faults

    def create_namespaced_custom_object(self, *, body: dict, **resource: str) -> None:
        super().create_namespaced_custom_object(body=body, **resource)
        self.faults()  # the answer is lost

    def get_namespaced_custom_object(self, **resource: str) -> dict:
        self.faults()
        return super().get_namespaced_custom_object(**resource)

    def delete_namespaced_custom_object(self, *, propagation_policy: str, **resource: str) -> None:
        self.faults()
        super().delete_namespaced_custom_object(propagation_policy=propagation_policy, **resource)


AWAY = [ApiException(status=503), ApiException(status=429), MaxRetryError(HTTPConnectionPool("kubernetes"), "/apis")]


@pytest.mark.parametrize("error", AWAY, ids=["unavailable", "busy", "unreachable"])
def test_a_cluster_that_is_away_for_a_while_costs_no_job(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    cluster = FaultyCluster(Faults(error, 3), [RUNNING, RUNNING, COMPLETE])
    wait(cluster)
    assert (cluster.created, cluster.deleted, cluster.faults.left) == (1, 0, 0)
    assert caplog.text.count("this step waits until it can ask again") == 1
    cluster = FaultyCluster(Faults(error, 0), [RUNNING, RUNNING, COMPLETE])

    def lose_the_answer(create: Any = cluster.create_namespaced_custom_object, **arguments: Any) -> None:
        cluster.faults.left = 1
        create(**arguments)

    cluster.create_namespaced_custom_object = lose_the_answer  # type: ignore[method-assign]
    wait(cluster)
    assert (cluster.created, cluster.deleted) == (1, 0), "the job that was made is waited for"


def test_a_lost_pods_job_whose_deletion_is_not_answered_counts_once() -> None:
    cluster = FaultyCluster(Faults(ApiException(status=500), 0), [FAILED, FAILED], [COMPLETE])

    class Preempted(Pods):
        def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
            cluster.faults.left = 1 if cluster.created == 1 and not lost else 0
            lost.append(True)
            return super().list_namespaced_pod(namespace, label_selector)

    lost: list[bool] = []
    wait(cluster, Preempted([pod("rank-0", disrupted_at=NOW)], []), retries=1)
    assert (cluster.created, cluster.deleted, cluster.faults.left) == (2, 1, 0)


def test_storage_that_is_away_for_a_while_costs_no_job() -> None:
    fault = Faults(StorageError("s3://editloop: cannot be written"), 2)
    cluster = Cluster([RUNNING, COMPLETE, COMPLETE])

    def is_delivered() -> bool:
        fault.left += not delivered
        delivered.append(True)
        fault()
        return True

    delivered: list[bool] = []
    TrainJobRun(JOB, cluster, Pods(), SETTINGS, is_delivered=is_delivered, beat=fault).wait()
    assert (cluster.created, cluster.deleted, fault.left, len(delivered)) == (1, 0, 0, 2)


def test_what_stays_away_ends_the_step_with_its_own_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.01)
    cluster = FaultyCluster(Faults(ApiException(status=503, reason="Service Unavailable"), 10**9), [RUNNING])
    with pytest.raises(ClusterAwayError, match=r"^Kubernetes cannot answer \(503 Service Unavailable\)"):
        wait(cluster)
    assert f"TrainJob default/{JOB.metadata.name} is not deleted: Kubernetes cannot answer" in caplog.text


@pytest.mark.parametrize("error", [ApiException(status=400), ReadTimeoutError(HTTPConnectionPool("node"), "/logs", "")])
def test_a_log_that_cannot_be_read_ends_nothing(error: Exception) -> None:
    class NoLogs(Pods):
        def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> str:
            raise error

    cluster = Cluster([RUNNING, COMPLETE])
    wait(cluster, NoLogs([pod("rank-0")]))
    assert (cluster.created, cluster.deleted) == (1, 0)


class Beats:
    """A mirror whose heartbeat changes `count` times, after a first look that the storage does not answer."""

    def __init__(self, count: int):
        self.left, self.remote = count, self
        self.is_away = True

    def read(self, name: str) -> bytes:
        assert name == HEARTBEAT
        if self.is_away:
            self.is_away = False
            raise StorageError("s3://editloop: cannot be read")
        self.left = max(0, self.left - 1)
        return b"%d" % self.left


@pytest.mark.parametrize("beats", [0, 1000])
def test_pods_end_by_themselves_when_nobody_waits_for_them(beats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainjob_node, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(trainjob_node, "STEP_SECONDS", 0.05)
    ends = pytest.raises(KeyboardInterrupt) if not beats else nullcontext()
    with interrupt_on_termination(), ends, trainjob_node.stop_without_step(Beats(beats)):
        time.sleep(0.5)

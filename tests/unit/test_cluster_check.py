"""What `editloop cluster preflight` says of a cluster that lacks things, and whose logs it finds."""

import base64
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from typer.testing import CliRunner

from editloop.errors import EditLoopError
from infra.profile import Profile, TrainingRuntime, read_profile
from pipelines import cluster_check
from pipelines.cli import app
from pipelines.cluster_check import StepLog, check_cluster, pod_logs
from pipelines.kfp_settings import KfpSettings
from tests.kfp_stub import kfp_stub

LAUNCHER = "I1128 13:44:43.7 11 launcher_v2.go:867] Executing\ntime=2026 level=INFO msg=x\n"


class Core:
    """The part of Kubernetes' CoreV1Api that is asked: objects by kind and name, nodes, and pods with their logs."""

    def __init__(self, objects: dict[tuple[str, str], set[str]], gpus: int = 0, status: int = 404):
        self.objects, self.gpus, self.status = objects, gpus, status
        self.quotas: dict[str, str] = {}
        self.limits: dict[str, str] = {}
        self.runtimes = {("trainingruntimes", "editloop-torch"), ("clustertrainingruntimes", "torch-distributed")}

    def read(self, kind: str, name: str) -> Any:
        if (kind, name) not in self.objects:
            raise ApiException(status=self.status, reason="no")
        return SimpleNamespace(data=dict.fromkeys(self.objects[kind, name], base64.b64encode(b"x").decode()))

    def list_namespaced_resource_quota(self, namespace: str) -> Any:
        spec, metadata = SimpleNamespace(hard=self.quotas), SimpleNamespace(name="ours")
        return SimpleNamespace(items=[SimpleNamespace(metadata=metadata, spec=spec)])

    def list_namespaced_limit_range(self, namespace: str) -> Any:
        limits = [SimpleNamespace(type="Container", max=self.limits), SimpleNamespace(type="Pod", max=None)]
        metadata, spec = SimpleNamespace(name="defaults"), SimpleNamespace(limits=limits)
        return SimpleNamespace(items=[SimpleNamespace(metadata=metadata, spec=spec)])

    def get_cluster_custom_object(self, *, group: str, version: str, plural: str, name: str) -> Any:
        if group != "trainer.kubeflow.org" or (plural, name) not in self.runtimes:
            raise ApiException(status=404, reason="no")
        return {}

    def get_namespaced_custom_object(self, *, namespace: str, **runtime: str) -> Any:
        return self.get_cluster_custom_object(**runtime)

    def read_namespace(self, name: str) -> Any:
        return self.read("namespace", name)

    def read_namespaced_service_account(self, name: str, namespace: str) -> Any:
        return self.read("serviceaccount", name)

    def read_namespaced_secret(self, name: str, namespace: str) -> Any:
        return self.read("secret", name)

    def read_namespaced_config_map(self, name: str, namespace: str) -> Any:
        return self.read("configmap", name)

    def list_node(self) -> Any:
        nodes = [SimpleNamespace(status=SimpleNamespace(allocatable={"nvidia.com/gpu": str(self.gpus)}))]
        return SimpleNamespace(items=nodes)

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        assert label_selector == "pipeline/runid=r"
        root = "train-reward-x(0).root(0).train-reward-steps(0)"
        nodes = [f"{root}.reward(0).executor(0)", f"{root}.reward-driver(0)", f"{root}.importer(0)"]
        nodes.append("train-reward-x(0).root(0).train-reward-preflight(0).executor(0)")
        places = enumerate(nodes)
        metadata = [
            SimpleNamespace(name=str(at), creation_timestamp=-at, annotations={cluster_check.NODE_ANNOTATION: node})
            for at, node in places
        ]
        return SimpleNamespace(items=[SimpleNamespace(metadata=one) for one in metadata])

    def read_namespaced_pod_log(self, name: str, namespace: str, container: str) -> str:
        return f"{LAUNCHER}step 1\nstep 2\neditloop: pod {name} says why\n{LAUNCHER}Error: exit status 1\n"


COMPLETE = {
    ("namespace", "editloop"): set(),
    ("serviceaccount", "editloop-steps"): set(),
    ("secret", "editloop-mlflow"): {"username", "password"},
    ("secret", "editloop-label-studio"): {"token"},
    ("secret", "editloop-s3"): {"accesskey", "secretkey"},
    ("secret", "editloop-signing"): {"signing-key.pem"},
    ("configmap", "kfp-launcher"): {"providers"},
}


def faults(monkeypatch: pytest.MonkeyPatch, core: Core, profile: Profile) -> dict[str, str]:
    """State and cure of everything that is not in order but the server, by its name."""
    monkeypatch.setattr(cluster_check, "_cluster_apis", lambda: (core, core))
    monkeypatch.setattr(cluster_check, "check_services", lambda variables, root: [])
    checks = check_cluster(KfpSettings(), profile)
    assert (checks[0].name, checks[0].ok) == ("Kubeflow Pipelines", False)
    return {check.name: f"{check.state}: {check.advice}" for check in checks[1:] if not check.ok}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Profile:
    for name in ("EDITLOOP_KFP_ENDPOINT", *cluster_check.ADDRESSES):
        monkeypatch.delenv(name, raising=False)
    return read_profile("example")


def test_a_cluster_with_everything_passes(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    assert faults(monkeypatch, Core(COMPLETE, gpus=1), example) == {}


@pytest.mark.parametrize("lacking", COMPLETE, ids=lambda one: one[1])
def test_each_thing_that_is_missing_is_named_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, example: Profile, lacking: tuple[str, str]
) -> None:
    kind, name = lacking
    found = faults(monkeypatch, Core({key: COMPLETE[key] for key in COMPLETE if key != lacking}, gpus=1), example)
    assert found.keys() == {f"{kind} {name}"}
    assert found[f"{kind} {name}"].startswith("missing: ")
    assert "kubectl" in found[f"{kind} {name}"] or "storage.yaml" in found[f"{kind} {name}"]


def test_keys_and_gpus_are_counted(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    found = faults(monkeypatch, Core(COMPLETE | {("secret", "editloop-s3"): {"accesskey"}}), example)
    assert found.keys() == {"secret editloop-s3", "1 nvidia.com/gpu on a node"}
    assert found["secret editloop-s3"].startswith("lacks secretkey: ")
    assert "lower `gpus` of candidates, reward" in found["1 nvidia.com/gpu on a node"]


def test_a_refusal_hides_nothing_else(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    found = faults(monkeypatch, Core({}, status=403), example)
    assert {f"{kind} {name}" for kind, name in COMPLETE} < found.keys()
    assert found["namespace editloop"].startswith("Kubernetes refuses (403 no). ")
    assert "1 nvidia.com/gpu on a node" in found


def test_without_a_cluster_the_services_are_asked_all_the_same(
    monkeypatch: pytest.MonkeyPatch, example: Profile
) -> None:
    def refuse() -> Any:
        raise EditLoopError("no access to a Kubernetes cluster. Log in first.")

    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(cluster_check, "_cluster_apis", refuse)
    monkeypatch.setattr(cluster_check, "check_services", lambda variables, root: asked.append((variables, root)) or [])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    checks = check_cluster(KfpSettings(), example)
    assert [check.name for check in checks if not check.ok] == ["Kubeflow Pipelines", "Kubernetes"]
    ((variables, root),) = asked
    assert variables["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:5000", "the shell's, behind a port-forward"
    assert variables["EDITLOOP_LABEL_STUDIO_URL"] == "http://label-studio.editloop.svc:8080"
    assert root == "s3://editloop/pipelines"


def test_services_get_the_log_ins_of_the_secrets(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(cluster_check, "_cluster_apis", lambda: (Core(COMPLETE, gpus=1), Core({})))
    monkeypatch.setattr(cluster_check, "check_services", lambda variables, root: asked.append(variables) or [])
    check_cluster(KfpSettings(), example)
    assert {asked[0][name] for secret in example.secrets for name in secret.variables} == {"x"}


def test_quotas_and_limits_are_compared_with_the_largest_stage(
    monkeypatch: pytest.MonkeyPatch, example: Profile
) -> None:
    core = Core(COMPLETE, gpus=1)
    core.quotas = {"limits.cpu": "15", "requests.memory": "128Gi", "requests.nvidia.com/gpu": "1", "pods": "1"}
    core.limits = {"memory": "127Gi", "cpu": "16"}
    found = faults(monkeypatch, core, example)
    assert found == {
        "quota ours: limits.cpu": "15; reward asks 16: raise it, or lower what stage reward asks in the profile",
        "limitrange defaults: memory": "127Gi; reward asks 128Gi: raise it, or lower what stage reward asks in the "
        "profile",
    }
    stages = example.stages | {"editor_rl": {"gpus": 1, "launcher": "trainjob", "nodes": 2, "cpu": "8"}}
    jobs = example.model_copy(update={"stages": stages})
    core.quotas, core.limits = {"requests.nvidia.com/gpu": "1"}, {}
    (gpus,) = faults(monkeypatch, core, jobs).values()
    assert gpus.startswith("1; editor_rl asks 2 x 1: raise it")
    core.quotas = {}
    stock = TrainingRuntime(name="torch-distributed", kind="ClusterTrainingRuntime")
    for runtime in (jobs.training_runtime, stock):
        core.runtimes = {(f"{runtime.kind.lower()}s", runtime.name)}
        assert not faults(monkeypatch, core, jobs.model_copy(update={"training_runtime": runtime}))
    told = faults(monkeypatch, core, jobs)["TrainingRuntime editloop-torch"]
    assert told.startswith("missing, and editor_rl need it: install infra/k8s/components/training-runtime")


@pytest.mark.parametrize(("version", "ok"), [("2.17.0", True), ("2.16.9", False), ("3.0", True), ("unknown", True)])
def test_the_server_s_version_is_checked(
    monkeypatch: pytest.MonkeyPatch, example: Profile, version: str, ok: bool
) -> None:
    with kfp_stub() as stub:
        stub.version = version
        monkeypatch.setenv("EDITLOOP_KFP_ENDPOINT", stub.url)
        monkeypatch.setattr(cluster_check, "_cluster_apis", lambda: (Core({}), Core({})))
        monkeypatch.setattr(cluster_check, "check_services", lambda variables, root: [])
        check = check_cluster(KfpSettings(), example)[0]
    assert (check.ok, version in check.state) == (ok, version != "unknown")


def test_logs_are_those_of_the_steps_without_the_launchers_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_check, "_cluster_apis", lambda: (Core({}), Core({})))
    assert list(pod_logs("editloop", "r", 2)) == [
        ("train-reward-preflight", "Check the settings, find the inputs", "step 2\neditloop: pod 3 says why"),
        ("reward", "Train the reward model", "step 2\neditloop: pod 0 says why"),
    ]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ("reward", "--- Train the reward model\nepoch 1\n"),
        ("check THE", "--- Check the settings, find the inputs\nfine\n"),
        ("rewrd", "--step rewrd: no pod of such a step in r; there are preflight, reward. Did you mean reward?"),
    ],
)
def test_logs_are_of_the_steps_that_are_asked_for(step: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = [
        StepLog("preflight", "Check the settings, find the inputs", "fine\n"),
        StepLog("reward", "Train the reward model", "epoch 1\n"),
    ]
    monkeypatch.setattr(cluster_check, "pod_logs", lambda namespace, run_id, tail: iter(logs))
    server = SimpleNamespace(profile=SimpleNamespace(namespace="editloop"), find=lambda run: "id")
    monkeypatch.setattr("pipelines.backend.open_server", lambda profile: server)
    called = CliRunner().invoke(app, ["cluster", "logs", "r", "--step", step])
    assert told in (called.stdout or str(called.exception))


def test_the_command_fails_where_something_is_missing(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    monkeypatch.setattr(cluster_check, "_cluster_apis", lambda: (Core({}), Core({})))
    monkeypatch.setattr(cluster_check, "check_services", lambda variables, root: [])
    called = CliRunner().invoke(app, ["cluster", "preflight", "--profile", "example"])
    assert called.exit_code == 1
    assert "✗ namespace editloop" in called.stdout
    assert "kubectl create namespace editloop" in called.stdout

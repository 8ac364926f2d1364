"""What `editloop cluster preflight` says of a cluster that lacks things, and whose logs it finds."""

from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException
from typer.testing import CliRunner

from editloop.errors import EditLoopError
from infra.profile import Profile, read_profile
from pipelines import cluster_check
from pipelines.cli import app
from pipelines.cluster_check import StepLog, check_cluster, pod_logs
from pipelines.kfp_settings import KfpSettings

LAUNCHER = "I1128 13:44:43.7 11 launcher_v2.go:867] Executing\ntime=2026 level=INFO msg=x\n"


class Core:
    """The part of Kubernetes' CoreV1Api that is asked: objects by kind and name, nodes, and pods with their logs."""

    def __init__(self, objects: dict[tuple[str, str], set[str]], gpus: int = 0, status: int = 404):
        self.objects, self.gpus, self.status = objects, gpus, status

    def read(self, kind: str, name: str) -> Any:
        if (kind, name) not in self.objects:
            raise ApiException(status=self.status, reason="no")
        return SimpleNamespace(data=dict.fromkeys(self.objects[kind, name], "x"))

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
    monkeypatch.setattr(cluster_check, "_core_api", lambda: core)
    checks = check_cluster(KfpSettings(), profile)
    assert (checks[0].name, checks[0].ok) == ("Kubeflow Pipelines", False)
    return {check.name: f"{check.state}: {check.advice}" for check in checks[1:] if not check.ok}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Profile:
    monkeypatch.delenv("EDITLOOP_KFP_ENDPOINT", raising=False)
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


def test_a_refusal_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, example: Profile) -> None:
    with pytest.raises(EditLoopError, match=r"^Kubernetes refuses \(403 no\)\. "):
        faults(monkeypatch, Core({}, status=403), example)


def test_logs_are_those_of_the_steps_without_the_launchers_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_check, "_core_api", lambda: Core({}))
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
    monkeypatch.setattr(cluster_check, "_core_api", lambda: Core({}))
    called = CliRunner().invoke(app, ["cluster", "preflight", "--profile", "example"])
    assert called.exit_code == 1
    assert "✗ namespace editloop" in called.stdout
    assert "kubectl create namespace editloop" in called.stdout

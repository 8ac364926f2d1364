"""Compilation: the committed files whatever the shell's environment, and what a profile gives each step."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1PodSpecPatch as PodSpecPatch

from editloop.errors import EditLoopError
from infra.profile import Profile, read_profile
from pipelines.backend import make_starter
from pipelines.catalogue import PIPELINES
from pipelines.compilation import COMPILED, EXAMPLE_PROFILE, compile_pipeline, read_deployment
from tests.unit.test_environment import CLASSES, WORDS

pytestmark = pytest.mark.usefixtures("quick_compilation")
COMPILE = "import sys; from pathlib import Path; from infra.profile import read_profile; "
COMPILE += "from pipelines.compilation import compile_pipelines; "
COMPILE += "compile_pipelines(Path(sys.argv[1]), read_profile('example'))"
OURS = """
image: registry.example/editloop@sha256:0000000000000000000000000000000000000000000000000000000000000000
pull_policy: Always
pull_secrets: [registry]
namespace: ours
service_account: steps
kfp_url: https://kfp.example
storage: {pipeline_root: "s3://ours/pipelines", endpoint: "http://s3.ours:8333", region: eu-1}
variables: {MLFLOW_TRACKING_URI: "http://mlflow.ours"}
config_maps: {places: {EDITLOOP_LABEL_STUDIO_URL: studio}}
secrets: [{secret: studio, variables: {EDITLOOP_LABEL_STUDIO_TOKEN: token}}]
secret_folders: [{secret: keys, path: /keys}]
defaults: {cpu: 500m, memory: 1Gi, retries: 1, backoff_seconds: 5, timeout_hours: 0.5}
stages:
  reward:
    gpus: 2
    gpu_kind: amd.com/gpu
    shared_memory: 8Gi
    node_selector: {pool: gpu}
    tolerations: [{key: gpu, effect: NoSchedule}]
    retries: 0
"""


@pytest.fixture
def ours(tmp_path: Path) -> Profile:
    (tmp_path / "ours.yaml").write_text(OURS)
    return read_profile(str(tmp_path / "ours.yaml"))


def test_no_variable_of_the_shell_changes_what_is_compiled(tmp_path: Path) -> None:
    hostile = {kind.variable(field): WORDS for kind in CLASSES for field in kind.model_fields}
    hostile |= {"KFP_DISABLE_EXECUTION_CACHING_BY_DEFAULT": "true", "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu"}
    hostile |= {"PIP_INDEX_URL": "http://127.0.0.1:9", "LC_ALL": "C", "MLFLOW_TRACKING_URI": WORDS}
    subprocess.run([sys.executable, "-c", COMPILE, str(tmp_path)], env=os.environ | hostile, check=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in COMPILED.glob("*.yaml")
    }


def executors(path: Path) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """Container and Kubernetes settings of every executor that runs one, by stage."""
    spec, platform = yaml.safe_load_all(path.read_text())
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        name.removeprefix("exec-"): (step["container"], pods[name])
        for name, step in spec["deploymentSpec"]["executors"].items()
        if "container" in step
    }


def retries(path: Path) -> dict[str, Any]:
    spec = next(yaml.safe_load_all(path.read_text()))
    dags = [part["dag"]["tasks"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    tasks = {name: task for dag in dags for name, task in dag.items()}
    no_pod = ("importer", "steps")
    return {name: task.get("retryPolicy") for name, task in tasks.items() if not any(word in name for word in no_pod)}


@pytest.mark.parametrize("name", PIPELINES)
def test_every_step_gets_what_the_profile_says(name: str, ours: Profile, tmp_path: Path) -> None:
    path = compile_pipeline(name, tmp_path / "compiled.yaml", ours)
    assert path.read_text().startswith(f"# PIPELINE DEFINITION\n# Name: {name}\n")
    assert next(yaml.safe_load_all(path.read_text()))["defaultPipelineRoot"] == "s3://ours/pipelines"
    assert len(executors(path)) >= 3
    for stage, (container, pod) in executors(path).items():
        assert container["image"] == ours.image
        assert {entry["name"]: entry["value"] for entry in container["env"]} == {
            "EDITLOOP_IMAGE": ours.image,
            "AWS_DEFAULT_REGION": "eu-1",
            "AWS_ENDPOINT_URL": "http://s3.ours:8333",
            "MLFLOW_TRACKING_URI": "http://mlflow.ours",
        }
        assert (pod["imagePullPolicy"], [one["secretName"] for one in pod["imagePullSecret"]]) == (
            "Always",
            ["registry"],
        )
        (secret,) = pod["secretAsEnv"]
        assert secret["secretName"] == "studio"
        assert secret["keyToEnv"] == [{"envVar": "EDITLOOP_LABEL_STUDIO_TOKEN", "secretKey": "token"}]
        (places,) = pod["configMapAsEnv"]
        assert places["keyToEnv"] == [{"envVar": "EDITLOOP_LABEL_STUDIO_URL", "configMapKey": "studio"}]
        (folder,) = pod["secretAsVolume"]
        assert (folder["secretName"], folder["mountPath"]) == ("keys", "/keys")
        assert pod["activeDeadlineSeconds"] == "1800"
        (run_id,) = pod["fieldPathAsEnv"]
        assert run_id == {"name": "EDITLOOP_PIPELINE_RUN", "fieldPath": "metadata.labels['pipeline/runid']"}
        resources = container["resources"]
        assert resources["resourceCpuLimit"] == resources["resourceCpuRequest"] == "500m"
        assert resources["resourceMemoryLimit"] == resources["resourceMemoryRequest"] == "1Gi"
        if stage == "reward":
            assert resources["accelerator"]["resourceType"] == "amd.com/gpu"
            assert resources["accelerator"]["resourceCount"] == "2"
            (memory,) = pod["emptyDirMounts"]
            assert (memory["mountPath"], memory["medium"], memory["sizeLimit"]) == ("/dev/shm", "Memory", "8Gi")
            assert pod["nodeSelector"]["labels"] == {"pool": "gpu"}
            (toleration,) = pod["tolerations"]
            assert (toleration["key"], toleration["operator"], toleration["effect"]) == ("gpu", "Exists", "NoSchedule")
        else:
            assert "accelerator" not in resources
            assert not pod.keys() & {"emptyDirMounts", "nodeSelector", "tolerations"}
    for stage, policy in retries(path).items():
        expected = {"maxRetryCount": 1, "backoffDuration": "5s", "backoffFactor": 2.0, "backoffMaxDuration": "3600s"}
        assert policy == (None if stage == "reward" else expected)


def test_a_training_on_several_nodes_is_a_trainjob_with_the_stages_resources(tmp_path: Path) -> None:
    values = yaml.safe_load(OURS)
    values["stages"]["reward"] |= {"launcher": "trainjob", "nodes": 2, "memory": "64Gi"}
    values["variables"] |= {"NCCL_SOCKET_IFNAME": "eth0", "EDITLOOP_SIGNING_KEY": "/keys/signing-key.pem"}
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(values))
    compiled = compile_pipeline("train-reward", tmp_path / "c.yaml", read_profile(str(tmp_path / "ours.yaml")))
    container, pod = executors(compiled)["reward"]
    resources = container["resources"]
    assert "accelerator" not in resources, "the step's own pod trains nothing"
    assert (resources["resourceCpuLimit"], resources["resourceMemoryLimit"]) == ("500m", "1Gi")
    assert not pod.keys() & {"emptyDirMounts", "nodeSelector", "tolerations"}
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["EDITLOOP_LAUNCHER"] == "trainjob"
    assert environment["EDITLOOP_TRAINJOB_NAMESPACE"] == "ours"
    assert json.loads(environment["EDITLOOP_TRAINJOB_RESOURCES"])["amd.com/gpu"] == "2"
    assert json.loads(environment["EDITLOOP_TRAINJOB_SECRETS"]) == {"EDITLOOP_LABEL_STUDIO_TOKEN": ["studio", "token"]}
    variables = ["MLFLOW_TRACKING_URI", "NCCL_SOCKET_IFNAME", "EDITLOOP_LABEL_STUDIO_URL"]
    assert json.loads(environment["EDITLOOP_TRAINJOB_VARIABLES"]) == variables, "no path of a secret"
    ranks = json.loads(environment["EDITLOOP_TRAINJOB_POD"])
    assert PodSpecPatch.from_dict(ranks).to_dict() == ranks, "a field that Kubeflow Trainer does not know"
    assert ranks["nodeSelector"] == {"pool": "gpu"}
    assert ranks["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in ranks["volumes"]
    assert ranks["imagePullSecrets"] == [{"name": "registry"}]
    paths = {entry["name"]: entry["fieldPath"] for entry in pod["fieldPathAsEnv"]}
    assert paths["EDITLOOP_POD_UID"] == "metadata.uid"
    assert "EDITLOOP_LAUNCHER" not in {entry["name"] for entry in executors(compiled)["benchmark"][0]["env"]}


def test_the_committed_pipelines_are_the_examples_and_hold_no_secret() -> None:
    example = read_profile(EXAMPLE_PROFILE)
    for name in PIPELINES:
        path = COMPILED / f"{name}.yaml"
        assert {container["image"] for container, _ in executors(path).values()} == {example.image}
        for container, _ in executors(path).values():
            assert not [entry for entry in container["env"] if "PASSWORD" in entry["name"] or "TOKEN" in entry["name"]]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("image: editloop:latest", "names whatever is newest"),
        ("image: editloop", "names whatever is newest"),
        ("image: 'no image'", "write REGISTRY/NAME:TAG"),
        ("namespace: Ours", "no name of a Kubernetes object"),
        ("variables: {MLFLOW_TRACKING_PASSWORD: x}", "name the Secret that holds it"),
        ("stages: {rewrd: {gpus: 1}}", "editor_eval. Did you mean reward?"),
        ("stages: {reward: {gpus: -1}}", "greater than or equal to 0"),
        ("stages: {reward: {gpu: 1}}", "gpu"),
        ("stages: {reward: {nodes: 2}}", "only a trainjob has several pods"),
        ("defaults: {memory: 4 GB}", "no quantity of Kubernetes"),
        ("storage: {pipeline_root: /data}", "pattern"),
        ("pul_policy: Always", "did you mean pull_policy"),
    ],
)
def test_a_faulty_profile_is_told_in_one_line(line: str, rule: str, tmp_path: Path) -> None:
    values = yaml.safe_load(OURS) | yaml.safe_load(line)
    (tmp_path / "ours.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(EditLoopError) as refused:
        read_deployment(str(tmp_path / "ours.yaml"))
    assert rule in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_profile_for_a_run_on_this_machine_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDITLOOP_KFP_ENDPOINT", raising=False)
    with pytest.raises(EditLoopError, match="--profile example: pipelines run on this machine"):
        make_starter(tmp_path, "example")
    monkeypatch.setenv("EDITLOOP_KFP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("EDITLOOP_PROFILE", raising=False)
    with pytest.raises(EditLoopError, match="EDITLOOP_PROFILE is not set"):
        make_starter(tmp_path)
    with pytest.raises(EditLoopError, match=r"127\.0\.0\.1:9: no Kubeflow Pipelines server answers there"):
        make_starter(tmp_path, "example")

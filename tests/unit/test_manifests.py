"""Kubernetes' manifests: valid by the schemas of who reads them, strict as `restricted` asks, and of one mind."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime

from infra.profile import read_profile
from pipelines.reconcile_settings import ReconcilePolicy
from tests.kubernetes_manifests import (
    FOLDER,
    PATCHES,
    Workload,
    config_map,
    manifests,
    secret_references,
    workload,
    workloads,
)

VERSION = "1.36"
RESTRICTED_VOLUMES = {"configMap", "emptyDir", "secret"}
PAGE = FOLDER.parent / "README.md"
PINNED = re.compile(r".+(:[\w.-]*\d[\w.-]*|@sha256:[0-9a-f]{64})$")
"""An image with a version's tag, or a digest."""

PART = {"app.kubernetes.io/part-of": "editloop"}
SECRET = re.compile(r"TOKEN$|PASSWORD|USER$|USERNAME|SECRET|ACCESS_KEY")
"""Names of variables with values that no manifest may have; a switch of such a name has the value true."""

every_workload = pytest.mark.parametrize("each", list(workloads()), ids=lambda each: each.name)


def validate(manifest: dict[str, Any]) -> None:
    """Fail where a manifest is not valid, unknown keys included."""
    if manifest["kind"] == "TrainingRuntime":
        runtime = TrainerV1alpha1TrainingRuntime.from_dict(manifest)
        assert runtime is not None
        assert runtime.to_dict() == manifest
    elif not manifest["apiVersion"].startswith("external-secrets.io/"):
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def external_secrets() -> set[tuple[str, str]]:
    """Secret and key of the example for External Secrets."""
    return {
        (manifest["metadata"]["name"], entry["secretKey"])
        for manifest in manifests()
        if manifest["kind"] == "ExternalSecret"
        for entry in manifest["spec"]["data"]
    }


@pytest.mark.parametrize("manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_valid(manifest: dict[str, Any]) -> None:
    validate(manifest)


def test_every_file_belongs_to_a_kustomization() -> None:
    listed: set[Path] = set()
    for path in FOLDER.rglob("kustomization.yaml"):
        kustomization = yaml.safe_load(path.read_text())
        files = [
            *kustomization.get("resources", []),
            *(patch.get("path") for patch in kustomization.get("patches", [])),
        ]
        files += [file for generator in kustomization.get("configMapGenerator", []) for file in generator["files"]]
        listed |= {(path.parent / file).resolve() for file in files if file}
    unlisted = {path for path in FOLDER.rglob("*") if path.is_file() and path.name != "kustomization.yaml"} - listed
    assert {path.parent.name for path in unlisted} == {"examples"}


@every_workload
def test_pods_run_without_rights(each: Workload) -> None:
    assert each.pod["automountServiceAccountToken"] is False
    assert each.pod["enableServiceLinks"] is False, "variables such as LABEL_STUDIO_PORT would be taken for settings"
    assert each.pod["serviceAccountName"] == "editloop-services"
    assert each.pod["securityContext"]["runAsNonRoot"] is True
    assert each.pod["securityContext"]["runAsUser"] > 0
    assert each.pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & each.pod.keys()
    for volume in each.pod.get("volumes", []):
        assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES
    for container in each.containers:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        for kind in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][kind].keys()


@every_workload
def test_what_serves_is_probed(each: Workload) -> None:
    for container in each.pod["containers"]:
        probes = {"startupProbe", "readinessProbe", "livenessProbe"}
        assert probes & container.keys() == (probes if "ports" in container else set())


@every_workload
def test_secrets_are_named_and_addresses_are_in_config_maps(each: Workload) -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests()}
    for container in each.containers:
        for variable in container.get("env", []):
            if SECRET.search(variable["name"]) and variable.get("value") != "true":
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]
            assert not re.search(r"https?://|s3://|example\.com|\.svc", variable.get("value", "")), variable["name"]


@every_workload
def test_every_pod_has_network_policies_of_its_own(each: Workload) -> None:
    labels = each.template["metadata"]["labels"]
    directions: set[str] = set()
    for manifest in manifests():
        if manifest["kind"] == "NetworkPolicy":
            selected = manifest["spec"]["podSelector"].get("matchLabels")
            if selected and selected != PART and selected.items() <= labels.items():
                directions |= set(manifest["spec"]["policyTypes"])
    serves = any("ports" in container for container in each.pod["containers"])
    connects = each.kind != "StatefulSet"
    assert {name for name, is_needed in (("Ingress", serves), ("Egress", connects)) if is_needed} <= directions


def test_nothing_may_pass_that_no_policy_names() -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in manifests() if each["kind"] == "NetworkPolicy"}
    for name in ("services", "steps"):
        assert policies[name]["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in policies[name]
    assert policies["services"]["podSelector"] == {"matchLabels": PART}
    assert all(PART.items() <= each.template["metadata"]["labels"].items() for each in workloads())
    assert all(policy["podSelector"] for policy in policies.values()), "other pods of the namespace stay as they are"


def test_the_secrets_are_the_same_everywhere() -> None:
    profile = read_profile("example")
    named = {(secret.secret, key) for secret in profile.secrets for key in secret.variables.values()}
    for each in workloads():
        named |= secret_references(each.template)
    command = re.compile(r"create secret generic (\S+)((?: \\?\s*--from-(?:literal|file)=\S+)+)")
    created = {
        (name, key)
        for name, arguments in command.findall(PAGE.read_text())
        for key in re.findall(r"--from-\w+=([^=\s]+)", arguments)
    }
    assert created == external_secrets()
    assert named <= created
    assert {secret for secret, _ in created} == {secret for secret, _ in named} | {
        folder.secret for folder in profile.secret_folders
    }


def test_the_example_profile_and_the_manifests_name_the_same_things() -> None:
    profile = read_profile("example")
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests()}
    assert ("ServiceAccount", profile.service_account) in names
    assert ("Namespace", profile.namespace) in names
    addresses = config_map("editloop-addresses")
    assert {name: value for name, value in profile.variables.items() if name in addresses}.items() <= addresses.items()


def test_addresses_are_those_of_the_services() -> None:
    services = {
        f"{manifest['metadata']['name']}.editloop.svc:{port['port']}"
        for manifest in manifests()
        if manifest["kind"] == "Service"
        for port in manifest["spec"]["ports"]
    }
    addresses, stores = config_map("editloop-addresses"), config_map("editloop-stores")
    for name in ("MLFLOW_TRACKING_URI", "EDITLOOP_LABEL_STUDIO_URL"):
        assert urlsplit(addresses[name]).netloc in services
    assert f"{stores['PGHOST']}:{stores['PGPORT']}" in services
    hosts = config_map("editloop-public")["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert urlsplit(addresses["MLFLOW_TRACKING_URI"]).netloc in hosts, "MLflow refuses requests to other hosts"
    local = yaml.safe_load_all((FOLDER / PATCHES[0]).read_text())
    endpoints = [patch["data"]["AWS_ENDPOINT_URL"] for patch in local if "AWS_ENDPOINT_URL" in patch["data"]]
    assert {urlsplit(endpoint).netloc for endpoint in endpoints} <= services


def test_the_reconciler_has_the_default_policy_and_takes_hints_where_the_service_leads() -> None:
    assert (
        ReconcilePolicy.model_validate(yaml.safe_load(config_map("editloop-policy")["policy.yaml"]))
        == ReconcilePolicy()
    )
    objects = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests()}
    (container,) = workload("reconcile").containers
    (port,) = objects["Service", "reconcile"]["spec"]["ports"]
    assert config_map("editloop-addresses")["EDITLOOP_HINT_URL"] == f"http://reconcile.editloop.svc:{port['port']}/hint"
    assert container["args"][2:4] == ["--listen", f"0.0.0.0:{container['ports'][0]['containerPort']}"]
    assert port["targetPort"] == container["ports"][0]["name"]
    (ingress,) = objects["NetworkPolicy", "reconcile"]["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": container["ports"][0]["containerPort"]}]


def test_images_are_pinned_in_one_place() -> None:
    images = yaml.safe_load((FOLDER / "components" / "images" / "kustomization.yaml").read_text())["images"]
    used = {container["image"] for each in workloads() for container in each.containers}
    assert {image["name"] for image in images} == used
    assert f"{images[0]['newName']}:{images[0]['newTag']}" == read_profile("example").image


def test_label_studio_and_gunicorn_are_of_the_locked_version() -> None:
    constraints = (FOLDER.parents[1] / "constraints-label-studio.txt").read_text().splitlines()
    images = yaml.safe_load((FOLDER / "components" / "images" / "kustomization.yaml").read_text())["images"]
    (image,) = (image for image in images if image["name"] == "editloop-label-studio")
    assert f"label-studio=={image['newTag']}" in constraints
    assert workload("label-studio").pod["containers"][0]["args"][0] == "gunicorn"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed: it puts the overlays together")
@pytest.mark.parametrize("folder", ["base", "overlays/gpu", "overlays/local"])
def test_what_is_applied_is_whole(folder: str) -> None:
    command = ["kubectl", "kustomize", str(FOLDER / folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    applied = list(yaml.safe_load_all(rendered))
    for manifest in applied:
        validate(manifest)
        assert manifest["metadata"].get("namespace", "editloop") == "editloop"
    images = re.findall(r"image: (\S+)", rendered)
    assert images
    assert all(PINNED.match(image) and "/" in image for image in images), images
    config_maps = {manifest["metadata"]["name"] for manifest in applied if manifest["kind"] == "ConfigMap"}
    referenced = set(re.findall(r"(?:configMapRef|configMap):\s+name: (\S+)", rendered))
    assert referenced <= config_maps | {"editloop-profile"}

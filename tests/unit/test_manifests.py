"""Kubernetes' manifests: valid by its own schemas, and as strict as `restricted` asks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infra.profile import read_profile
from pipelines.reconcile_settings import ReconcilePolicy

BASE = Path(__file__).parents[2] / "infra" / "k8s" / "base"
VERSION = "1.36"


def manifests() -> list[dict[str, Any]]:
    files = sorted(path for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for manifest in manifests():
        spec = manifest.get("spec", {})
        if "template" in spec:
            yield manifest["metadata"]["name"], spec["template"]["spec"]


@pytest.mark.parametrize("manifest", manifests(), ids=lambda one: f"{one['kind']}-{one['metadata']['name']}")
def test_a_manifest_is_valid(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_every_file_is_a_part_of_the_base() -> None:
    listed = yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(path.name for path in BASE.glob("*.yaml") if path.name != "kustomization.yaml")


def test_pods_run_without_rights() -> None:
    names = []
    for name, pod in pods():
        names.append(name)
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert {"requests", "limits"} <= container["resources"].keys()
    assert names == ["reconcile", "reward-service"]


def test_secrets_are_named_and_never_written_down() -> None:
    assert "Secret" not in {manifest["kind"] for manifest in manifests()}
    for _, pod in pods():
        for variable in pod["containers"][0]["env"]:
            is_secret = any(word in variable["name"] for word in ("TOKEN", "PASSWORD", "USERNAME", "SECRET"))
            assert ("valueFrom" in variable) == is_secret


def test_the_example_profile_and_the_manifests_name_the_same_things() -> None:
    profile = read_profile("example")
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in manifests()}
    assert ("ServiceAccount", profile.service_account) in names
    assert ("Namespace", profile.namespace) in names
    secrets = {one.secret for one in profile.secrets} | {one.secret for one in profile.secret_folders}
    referenced = {"editloop-reward-service", "editloop-hints"} | secrets
    for _, pod in pods():
        used = [
            entry["valueFrom"]["secretKeyRef"]["name"] for entry in pod["containers"][0]["env"] if "valueFrom" in entry
        ]
        assert set(used) <= referenced


def test_the_reconciler_has_the_default_policy_and_takes_hints_where_the_service_leads() -> None:
    objects = {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in manifests()}
    policy = yaml.safe_load(objects["ConfigMap", "editloop-policy"]["data"]["policy.yaml"])
    assert ReconcilePolicy.model_validate(policy) == ReconcilePolicy()
    container = objects["Deployment", "reconcile"]["spec"]["template"]["spec"]["containers"][0]
    (port,) = objects["Service", "reconcile"]["spec"]["ports"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["EDITLOOP_HINT_URL"] == f"http://reconcile.editloop.svc:{port['port']}/hint"
    assert container["args"][2:4] == ["--listen", f"0.0.0.0:{container['ports'][0]['containerPort']}"]
    assert port["targetPort"] == container["ports"][0]["name"]
    (ingress,) = objects["NetworkPolicy", "reconcile"]["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": container["ports"][0]["containerPort"]}]

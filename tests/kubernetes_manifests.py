"""The Kubernetes manifests of infra/k8s, as the files have them: workloads, their pods, and containers' environment."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

FOLDER = Path(__file__).parents[1] / "infra" / "k8s"
PATCHES = ("overlays/local/addresses.yaml",)
"""Files that are parts of manifests."""


class Workload(NamedTuple):
    """What runs pods."""

    kind: str
    name: str
    template: dict[str, Any]
    """Pod template."""

    @property
    def pod(self) -> dict[str, Any]:
        """Specification of its pods."""
        return dict(self.template["spec"])

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Containers of a pod, the first ones in order of their start."""
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]


def manifest_files() -> list[Path]:
    """The files with manifests, without kustomizations and patches."""
    return sorted(
        path
        for path in FOLDER.rglob("*.yaml")
        if path.name != "kustomization.yaml" and str(path.relative_to(FOLDER)) not in PATCHES
    )


def manifests() -> list[dict[str, Any]]:
    """All manifests."""
    return [document for path in manifest_files() for document in yaml.safe_load_all(path.read_text())]


def workloads() -> Iterator[Workload]:
    """All workloads, trainings' runtime included."""
    for manifest in manifests():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "TrainingRuntime":
            for job in spec["template"]["spec"]["replicatedJobs"]:
                yield Workload(manifest["kind"], manifest["metadata"]["name"], job["template"]["spec"]["template"])
        else:
            spec = spec.get("jobTemplate", {}).get("spec", spec)
            if "containers" in spec.get("template", {}).get("spec", {}):
                yield Workload(manifest["kind"], manifest["metadata"]["name"], spec["template"])


def workload(name: str) -> Workload:
    """The workload of a name."""
    (found,) = (each for each in workloads() if each.name == name)
    return found


def config_map(name: str) -> dict[str, str]:
    """The data of a ConfigMap."""
    (found,) = (each for each in manifests() if (each["kind"], each["metadata"]["name"]) == ("ConfigMap", name))
    return dict(found["data"])


def secret_references(template: object) -> set[tuple[str, str]]:
    """Secret and key of all that a pod template takes from Secrets."""
    references: set[tuple[str, str]] = set()
    if isinstance(template, dict):
        if "secretKeyRef" in template:
            references.add((template["secretKeyRef"]["name"], template["secretKeyRef"]["key"]))
        if "secretName" in template:
            references |= {(template["secretName"], item["key"]) for item in template["items"]}
    if isinstance(template, dict | list):
        for part in template.values() if isinstance(template, dict) else template:
            references |= secret_references(part)
    return references


def environment(
    container: dict[str, Any], addresses: Mapping[str, str], secrets: Mapping[tuple[str, str], str]
) -> dict[str, str]:
    """The variables that Kubernetes gives a container. What the pod's own fields give is left out.

    Args:
        container: Specification of the container.
        addresses: Values in place of the ConfigMaps' own, by key.
        secrets: Values by Secret and key.
    """
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        data = config_map(source["configMapRef"]["name"])
        variables |= {name: addresses.get(name, value) for name, value in data.items()}
    for entry in container.get("env", []):
        source = entry.get("valueFrom", {})
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        elif reference := source.get("secretKeyRef"):
            variables[entry["name"]] = secrets[reference["name"], reference["key"]]
        elif reference := source.get("configMapKeyRef"):
            variables[entry["name"]] = addresses.get(reference["key"], config_map(reference["name"])[reference["key"]])
    return variables

"""Deployment profile: where pipelines run on a cluster, in one YAML file.

A profile says which image the steps run in, where storage and services are, which secrets they see, and what each stage
gets of the cluster. `editloop compile --profile FILE` writes pipelines for it. Secrets are named, never written down.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from editloop.addresses import has_secrets
from editloop.environment import PublicAddress
from editloop.settings_file import FrozenModel, find_preset, read_settings

PROFILES = Path(__file__).with_name("profiles")
"""Those that ship."""
IMAGE = re.compile(r"^[a-z0-9./:_-]+?(:(?P<tag>[\w.-]+))?(@sha256:(?P<digest>[0-9a-f]{64}))?$")
QUANTITY = re.compile(r"^\d+(\.\d+)?(m|[kMGTP]i?)?$")
NAME = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def _quantity(text: str) -> str:
    if text and not QUANTITY.match(text):
        raise ValueError(f"{text}: no quantity of Kubernetes; write for example 500m, 4 or 16Gi")
    return text


def _name(text: str) -> str:
    if not NAME.match(text):
        raise ValueError(f"{text}: no name of a Kubernetes object; small letters, digits, - and . alone")
    return text


def _variable(text: str) -> str:
    if not VARIABLE.match(text):
        raise ValueError(f"{text}: no name of an environment variable")
    return text


def _image(text: str) -> str:
    match = IMAGE.match(text)
    if match is None:
        raise ValueError(f"{text}: no image; write REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST")
    if not match["digest"] and (match["tag"] or "latest") == "latest":
        raise ValueError(
            f"{text}: names whatever is newest, so that two steps of a run may differ; add a tag or a digest"
        )
    return text


Quantity = Annotated[str, AfterValidator(_quantity)]
"""Amount of a resource in Kubernetes' notation."""
ObjectName = Annotated[str, AfterValidator(_name)]
Variable = Annotated[str, AfterValidator(_variable)]
ImageName = Annotated[str, AfterValidator(_image)]


class ProfileModel(FrozenModel):
    """Part of a profile. The string below a field is its description in the schema."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Toleration(ProfileModel):
    """A taint of nodes that a stage's pods may run on nevertheless."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class StageResources(ProfileModel):
    """What the pods of a stage get, and how failures are handled."""

    cpu: Quantity = "1"
    """Processors, requested and at most."""
    memory: Quantity = "4Gi"
    """Main memory, requested and at most."""
    gpus: int = Field(0, ge=0)
    """GPUs of each pod."""
    gpu_kind: str = "nvidia.com/gpu"
    """The cluster's name of the GPUs."""
    shared_memory: Quantity = ""
    """Size of /dev/shm; empty for the cluster's default, 64 MB, which is little for several ranks with GPUs."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes to run on."""
    tolerations: tuple[Toleration, ...] = ()
    retries: int = Field(2, ge=0)
    """Further tries of a failed step. A training continues at its last checkpoint."""
    backoff_seconds: int = Field(60, ge=1)
    """Pause before the first retry; each one is twice as long as the one before, an hour at most."""
    timeout_hours: float = Field(24.0, gt=0)
    """Longest time of one try."""
    launcher: Literal["pod", "trainjob"] = "pod"
    """`pod`: the ranks of a training are processes of the step's own pod. `trainjob`: pods of a Kubeflow TrainJob."""
    nodes: int = Field(1, ge=1)
    """Pods of a TrainJob, which share the stage's processes equally."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.nodes > 1 and self.launcher == "pod":
            raise ValueError(
                f"nodes {self.nodes} with launcher pod: only a trainjob has several pods; set the launcher"
            )
        return self


class SecretVariables(ProfileModel):
    """Environment variables whose values are in a Secret."""

    secret: ObjectName
    variables: dict[Variable, str]
    """Key in the Secret, by variable."""


class SecretFolder(ProfileModel):
    """A Secret whose keys are files of a folder."""

    secret: ObjectName
    path: str = Field(pattern=r"^/")
    """Folder in the pods."""


class Storage(ProfileModel):
    """Object storage of pictures, checkpoints and what steps hand on."""

    pipeline_root: str = Field(pattern=r"^(s3|gs|minio)://")
    """Address below which KFP keeps what steps write."""
    endpoint: PublicAddress = ""
    """Address of an S3 server that is not AWS's."""
    region: str = "us-east-1"


class TrainingRuntime(ProfileModel):
    """Kubeflow Trainer's template of the pods of TrainJobs."""

    name: ObjectName = "editloop-torch"
    kind: Literal["TrainingRuntime", "ClusterTrainingRuntime"] = "TrainingRuntime"
    """`TrainingRuntime`: one of the namespace. `ClusterTrainingRuntime`: one of the whole cluster."""


class Profile(ProfileModel):
    """Where pipelines run on a cluster."""

    image: ImageName
    """Container image of the steps, with a tag or a digest. It has EditLoop installed."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[ObjectName, ...] = ()
    """Secrets with the log-in of the image's registry."""
    namespace: ObjectName
    """Namespace in which runs and their pods are."""
    service_account: ObjectName
    """Account that the steps' pods run as."""
    kfp_url: PublicAddress = Field(pattern=r"^https?://")
    """Address of Kubeflow Pipelines' UI, for links that people follow."""
    storage: Storage
    variables: dict[Variable, str] = Field(default_factory=dict)
    """Environment variables of all steps, such as MLFLOW_TRACKING_URI and EDITLOOP_LABEL_STUDIO_URL. No secrets."""
    config_maps: dict[ObjectName, dict[Variable, str]] = Field(default_factory=dict)
    """ConfigMaps with further variables: key in the ConfigMap, by variable."""
    secrets: tuple[SecretVariables, ...] = ()
    secret_folders: tuple[SecretFolder, ...] = ()
    training_runtime: TrainingRuntime = TrainingRuntime()
    """What TrainJobs are made from, where a stage's launcher is trainjob."""
    defaults: StageResources = StageResources()
    """What a stage gets that `stages` does not name."""
    stages: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Values in place of those of `defaults`, by stage."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for stage in self.stages:
            self.resources(stage)
        for name in self.variables:
            if re.search(r"TOKEN|PASSWORD|SECRET|ACCESS_KEY", name):
                raise ValueError(f"variables.{name}: looks like a secret; name the Secret that holds it in `secrets`")
            if has_secrets(self.variables[name]):
                raise ValueError(f"variables.{name}: a password in an address; name a Secret with it in `secrets`")
        return self

    def resources(self, stage: str) -> StageResources:
        """Return what a stage gets.

        Args:
            stage: The stage's name.
        """
        return StageResources.model_validate(self.defaults.model_dump() | self.stages.get(stage, {}))


def read_profile(name: str) -> Profile:
    """Read a deployment profile.

    Args:
        name: The name of a shipped profile, or the path of a YAML file.

    Raises:
        EditLoopError: There is no such profile, or it is not valid.
    """
    return read_settings(Profile, find_preset(name, PROFILES, "profile"), "profile")

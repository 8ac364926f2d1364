"""Give a pipeline's tasks what a deployment profile says: image, environment, secrets, resources, retries."""

import json
from pathlib import PurePosixPath
from typing import Any

from kfp import kubernetes
from pydantic import JsonValue

from editloop.lineage.step import PipelineRunSettings
from infra.launch import LaunchSettings
from infra.profile import Profile, StageResources
from infra.trainjob import TRAINJOB_CONTAINER

LONGEST_BACKOFF_SECONDS = 3600
RUN_ID_LABEL = "metadata.labels['pipeline/runid']"
"""Where KFP writes the run's id on a pod."""
GRACE_SECONDS = 180
"""Time in which a TrainJob's pods save and send a checkpoint after they were told to end."""


def deploy(task: Any, stage: str, profile: Profile) -> None:
    """Set what the pod of a task gets.

    Args:
        task: KFP's task.
        stage: The stage's name, or that of the first step.
        profile: The deployment profile.
    """
    resources = profile.resources(stage)
    own = profile.defaults if resources.launcher == "trainjob" else resources  # of the step's pod itself
    task.set_container_image(profile.image)
    variables = {LaunchSettings.variable("image"): profile.image, "AWS_DEFAULT_REGION": profile.storage.region}
    if profile.storage.endpoint:
        variables["AWS_ENDPOINT_URL"] = profile.storage.endpoint
    for name, value in (variables | profile.variables).items():
        task.set_env_variable(name, value)
    kubernetes.use_field_path_as_env(task, PipelineRunSettings.variable("pipeline_run"), RUN_ID_LABEL)
    if resources.launcher == "trainjob":
        _launch_trainjobs(task, resources, profile)
    for config_map, variables in profile.config_maps.items():
        for name, key in variables.items():
            kubernetes.use_config_map_as_env(task, config_map, {key: name})
    for secret in profile.secrets:
        for name, key in secret.variables.items():
            kubernetes.use_secret_as_env(task, secret.secret, {key: name})
    for folder in profile.secret_folders:
        kubernetes.use_secret_as_volume(task, folder.secret, folder.path)
    kubernetes.set_image_pull_policy(task, profile.pull_policy)
    if profile.pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(profile.pull_secrets))
    task.set_cpu_request(own.cpu).set_cpu_limit(own.cpu)
    task.set_memory_request(own.memory).set_memory_limit(own.memory)
    if own.gpus:
        task.set_accelerator_type(own.gpu_kind).set_accelerator_limit(own.gpus)
    if own.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=own.shared_memory)
    for label, value in own.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in own.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect or None,
        )
    kubernetes.set_timeout(task, round(resources.timeout_hours * 3600))
    if resources.retries:
        task.set_retry(
            num_retries=resources.retries,
            backoff_duration=f"{resources.backoff_seconds}s",
            backoff_factor=2.0,
            backoff_max_duration=f"{LONGEST_BACKOFF_SECONDS}s",
        )


def _launch_trainjobs(task: Any, resources: StageResources, profile: Profile) -> None:
    """Let a task start its trainings as TrainJobs, which get the stage's resources."""
    per_node = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.gpus:
        per_node[resources.gpu_kind] = str(resources.gpus)
    secrets = {name: [secret.secret, key] for secret in profile.secrets for name, key in secret.variables.items()}
    values = {
        "launcher": "trainjob",
        "trainjob_namespace": profile.namespace,
        "trainjob_runtime": profile.training_runtime.name,
        "trainjob_runtime_kind": profile.training_runtime.kind,
        "trainjob_nodes": str(resources.nodes),
        "trainjob_resources": json.dumps(per_node),
        "trainjob_secrets": json.dumps(secrets),
        "trainjob_variables": json.dumps(_trainjob_variables(profile)),
        "trainjob_retries": str(resources.retries),
        "trainjob_pod": json.dumps(_trainjob_pod(resources, profile)),
    }
    for field, value in values.items():
        task.set_env_variable(LaunchSettings.variable(field), value)
    for field, path in (("pod_name", "metadata.name"), ("pod_uid", "metadata.uid")):
        kubernetes.use_field_path_as_env(task, LaunchSettings.variable(field), path)


def _trainjob_variables(profile: Profile) -> list[str]:
    """Return the profile's variables that a TrainJob's pods get: all but paths of secrets, which only steps have."""
    plain = [
        name
        for name, value in profile.variables.items()
        if not any(PurePosixPath(value).is_relative_to(folder.path) for folder in profile.secret_folders)
    ]
    return plain + [name for variables in profile.config_maps.values() for name in variables]


def _trainjob_pod(resources: StageResources, profile: Profile) -> dict[str, JsonValue]:
    """Return what a TrainJob's pods get beside the runtime's template: a PodSpecPatch of Kubeflow Trainer."""
    volumes: list[JsonValue] = [{"name": "scratch", "emptyDir": {}}]
    mounts: list[JsonValue] = [{"name": "scratch", "mountPath": "/tmp"}]
    if resources.shared_memory:
        memory: JsonValue = {"medium": "Memory", "sizeLimit": resources.shared_memory}
        volumes.append({"name": "shared-memory", "emptyDir": memory})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    container: JsonValue = {
        "name": TRAINJOB_CONTAINER,
        "volumeMounts": mounts,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "nodeSelector": dict(resources.node_selector),
        "tolerations": [
            {name: value for name, value in toleration.model_dump().items() if value}
            for toleration in resources.tolerations
        ],
        "imagePullSecrets": [{"name": name} for name in profile.pull_secrets],
        "volumes": volumes,
        "containers": [container],
    }

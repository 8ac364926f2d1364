"""Distributed work as a Kubeflow Trainer v2 TrainJob: its manifest, and its life from creation to its end.

A job is named after what it does, so a retried step finds the job of its first try. Its pods run the same module with
the same arguments as ranks on one machine would. Paths in the arguments must lie on a volume that the runtime mounts at
the same path as in the calling pod.
"""

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import Field

from editloop.content import sha256_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from infra.cluster_access import answering, log_in
from infra.settings import DEFAULT_IMAGE

log = logging.getLogger(__name__)

FORWARDED_VARIABLES = (
    "EDITLOOP_STAGE_RUN",
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
)
"""Variables that the pods of a TrainJob get from this process. Secrets are passed by reference."""
RESOURCE = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
CURES = {
    403: "Bind the role editloop-trainjobs (infra/k8s/base/access.yaml) to the step's account",
    404: "Install Kubeflow Trainer v2, or correct EDITLOOP_TRAINJOB_NAMESPACE",
}
"""What to do where Kubernetes refuses a TrainJob."""
POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label by which the pods of a TrainJob are found; its value is the job's name."""
STUCK_SECONDS = 300.0
"""Longest time that a pod may be unable to start for a reason that waiting does not cure."""
HOPELESS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""Reasons for which a container does not start, whatever the cluster does."""


class TrainJobSettings(EnvironmentSettings):
    """Where and with what TrainJobs run."""

    image: str = DEFAULT_IMAGE
    """Container image of the pods; it has the project installed."""
    trainjob_namespace: str = "default"
    """Namespace in which TrainJobs are created."""
    trainjob_runtime: str = "torch-distributed"
    """Name of the ClusterTrainingRuntime; its pods mount the volume that holds the stages' folders."""
    trainjob_nodes: int = Field(1, ge=1)
    """Pods that share the ranks."""
    trainjob_resources: dict[str, str] = Field(default_factory=dict)
    """What each pod gets, as JSON: {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": "8"}."""
    trainjob_secrets: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Secret and key of variables whose values are secret, as JSON: {"MLFLOW_TRACKING_PASSWORD": ["mlflow",
    "password"]}."""
    trainjob_poll_seconds: float = Field(5.0, gt=0)
    """Seconds between two polls of a TrainJob."""
    pod_name: str = ""
    """Name of the calling pod, which then owns the job: Kubernetes deletes the job with it."""
    pod_uid: str = ""
    """Kubernetes' uid of the calling pod."""


class TrainJobs(Protocol):
    """The part of Kubernetes' CustomObjectsApi that TrainJobs need."""

    def create_namespaced_custom_object(
        self, *, group: str, version: str, plural: str, namespace: str, body: Mapping[str, object]
    ) -> object: ...

    def get_namespaced_custom_object(
        self, *, group: str, version: str, plural: str, namespace: str, name: str
    ) -> dict[str, dict[str, list[dict[str, str]]]]: ...

    def delete_namespaced_custom_object(
        self, *, group: str, version: str, plural: str, namespace: str, name: str
    ) -> object: ...


def trainjob_manifest(command: list[str], processes: int, settings: TrainJobSettings) -> dict[str, Any]:
    """Return the manifest of the TrainJob that runs a command.

    Its name depends only on the image and the command, so a retry finds its job.

    Args:
        command: Arguments of `python`.
        processes: Number of ranks, over all pods.
        settings: Image, namespace, runtime and resources.

    Raises:
        EditLoopError: The ranks cannot be shared equally by the pods.
    """
    if processes % settings.trainjob_nodes:
        raise EditLoopError(
            f"{processes} processes on {settings.trainjob_nodes} nodes: each node needs as many; change one of them."
        )
    name = f"editloop-{sha256_json([settings.image, command])[:16]}"
    metadata: dict[str, object] = {"name": name, "namespace": settings.trainjob_namespace}
    if settings.pod_name and settings.pod_uid:
        metadata["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Pod", "name": settings.pod_name, "uid": settings.pod_uid}
        ]
    values = os.environ | {"OMP_NUM_THREADS": "1"}
    environment: list[dict[str, object]] = [
        {"name": name, "value": values[name]} for name in ("OMP_NUM_THREADS", *FORWARDED_VARIABLES) if values.get(name)
    ]
    environment += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
        for name, (secret, key) in settings.trainjob_secrets.items()
    ]
    resources = settings.trainjob_resources
    return {
        "apiVersion": f"{RESOURCE['group']}/{RESOURCE['version']}",
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {
            "runtimeRef": {"name": settings.trainjob_runtime},
            "trainer": {
                "image": settings.image,
                "command": ["python", *command],
                "numNodes": settings.trainjob_nodes,
                "numProcPerNode": processes // settings.trainjob_nodes,
                "env": environment,
                **({"resourcesPerNode": {"requests": resources, "limits": resources}} if resources else {}),
            },
        },
    }


def launch_trainjob(command: list[str], processes: int, settings: TrainJobSettings, result: Path | None) -> None:
    """Run a command as a TrainJob, and wait for its end.

    Args:
        command: Arguments of `python`.
        processes: Number of ranks, over all pods.
        settings: Image, namespace, runtime and resources.
        result: File that the job writes; None: do not check for it.

    Raises:
        EditLoopError: There is no cluster, it refuses the job, or the job fails.
    """
    from kubernetes import client

    log_in()
    job = trainjob_manifest(command, processes, settings)
    run_trainjob(job, client.CustomObjectsApi(), client.CoreV1Api(), settings.trainjob_poll_seconds, result)


def run_trainjob(
    job: Mapping[str, Any], api: TrainJobs, core: Any, poll_seconds: float, result: Path | None = None
) -> None:
    """Create a TrainJob, or find the one of its name, and wait until it completes.

    A job from an earlier try is deleted and created again where it failed, or where it completed and its `result` is
    gone. The training then continues at its checkpoints. The pods' log lines are printed as they come, and a pod that
    cannot start is reported with Kubernetes' reason. An interrupt deletes the job: its pods save and end.

    Args:
        job: Manifest of the TrainJob.
        api: The CustomObjectsApi of the Kubernetes client.
        core: The CoreV1Api.
        poll_seconds: Seconds between two polls.
        result: File that the job writes; None: do not check for it.

    Raises:
        EditLoopError: The job failed, cannot start, or somebody deleted it; or the cluster refuses it.
    """
    metadata: dict[str, str] = job["metadata"]
    name, namespace = metadata["name"], metadata["namespace"]
    resource = RESOURCE | {"namespace": namespace}
    pods = _PodWatch(core, name, namespace)
    created = _create(api, resource, job)
    try:
        while True:
            conditions = _conditions(api, resource, name)
            if conditions is None:
                if created:
                    raise EditLoopError(f"TrainJob {namespace}/{name} was deleted before it ended. Run the step again.")
                created = _create(api, resource, job)  # an earlier try's job is deleted by now
                continue
            pods.look()
            is_lost = not created and result is not None and not result.exists()
            if "Complete" in conditions and not is_lost:
                return
            if conditions.keys() & {"Complete", "Failed"} and not created:
                _delete(api, resource, name)
            elif failed := conditions.get("Failed"):
                raise EditLoopError(
                    f"TrainJob {namespace}/{name} failed: {failed.get('reason')}: {failed.get('message')}. Its log is "
                    "above; run the step again: it goes on at the last checkpoint."
                )
            time.sleep(poll_seconds)
    except (KeyboardInterrupt, _CannotStartError):
        _delete(api, resource, name)
        raise


class _CannotStartError(EditLoopError):
    """A pod cannot start, whatever the cluster does."""


class WaitingPod(NamedTuple):
    """A pod and why it does not run yet."""

    name: str
    reason: str
    """Kubernetes' word for it; empty where the pod runs or has ended."""
    message: str


class _PodWatch:
    """The pods of a job: prints the new lines of their logs, and tells why one does not start."""

    def __init__(self, core: Any, name: str, namespace: str):
        self.core, self.name, self.namespace = core, name, namespace
        self.printed: dict[str, str] = {}
        """Time stamp of each pod's last printed line."""
        self.reasons: dict[str, str] = {}
        self.stuck_since: float | None = None

    def look(self) -> None:
        """Print what is new.

        Raises:
            _CannotStartError: A pod cannot start, and could not for STUCK_SECONDS.
        """
        hopeless = ""
        for pod in self._pods():
            if pod.reason and self.reasons.get(pod.name) != pod.reason:
                log.warning("%s does not start: %s: %s", *pod)
            self.reasons[pod.name] = pod.reason
            if pod.reason in HOPELESS:
                hopeless = f"{pod.name}: {pod.reason}: {pod.message}"
            if not pod.reason:
                self._print_log(pod.name)
        if not hopeless:
            self.stuck_since = None
            return
        self.stuck_since = self.stuck_since or time.monotonic()
        if time.monotonic() - self.stuck_since >= STUCK_SECONDS:
            raise _CannotStartError(f"TrainJob {self.namespace}/{self.name} cannot start: {hopeless}")

    def _pods(self) -> list[WaitingPod]:
        with answering(CURES):
            pods = self.core.list_namespaced_pod(self.namespace, label_selector=f"{POD_LABEL}={self.name}").items
        return [_waiting_pod(pod) for pod in pods]

    def _print_log(self, name: str) -> None:
        from kubernetes.client.exceptions import ApiException

        try:
            text: str = self.core.read_namespaced_pod_log(name, self.namespace, timestamps=True, since_seconds=600)
        except ApiException:  # its container is being made, or its node is away
            return
        for line in text.splitlines():
            stamp, _, words = line.partition(" ")
            if stamp > self.printed.get(name, ""):
                self.printed[name] = stamp
                print(words, flush=True)


def _waiting_pod(pod: Any) -> WaitingPod:
    """Return a pod as Kubernetes' client describes it."""
    name: str = pod.metadata.name
    for status in pod.status.container_statuses or []:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            return WaitingPod(name, waiting.reason, waiting.message or "")
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return WaitingPod(name, condition.reason or "Unschedulable", condition.message or "")
    return WaitingPod(name, "", "")


def _create(api: TrainJobs, resource: dict[str, str], job: Mapping[str, object]) -> bool:
    """Create a job; return whether this call made it, and no earlier one."""
    from kubernetes.client.exceptions import ApiException

    with answering(CURES):
        try:
            api.create_namespaced_custom_object(**resource, body=job)
        except ApiException as error:
            if error.status != 409:
                raise
            return False
    return True


def _conditions(api: TrainJobs, resource: dict[str, str], name: str) -> dict[str, dict[str, str]] | None:
    """Return a job's conditions that hold, by type; None where there is no such job."""
    from kubernetes.client.exceptions import ApiException

    with answering(CURES):
        try:
            state = api.get_namespaced_custom_object(**resource, name=name).get("status", {})
        except ApiException as error:
            if error.status == 404:
                return None
            raise
    return {
        condition["type"]: condition for condition in state.get("conditions", []) if condition.get("status") == "True"
    }


def _delete(api: TrainJobs, resource: dict[str, str], name: str) -> None:
    from kubernetes.client.exceptions import ApiException

    with answering(CURES):
        try:
            api.delete_namespaced_custom_object(**resource, name=name)
        except ApiException as error:
            if error.status != 404:
                raise

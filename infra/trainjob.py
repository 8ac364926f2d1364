"""Trainings as Kubeflow Trainer v2 TrainJobs: the job, and its life from creation to its end.

A job is named after what it trains, so a retried step finds the job of its first try. Its pods share nothing with the
step but object storage (`infra.trainjob_files`).
"""

import logging
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import Field, JsonValue

from editloop.content import sha256_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.lineage.stored_folders import StoredFolderSettings
from editloop.object_storage import StorageError
from editloop.training.checkpoint_mirror import mirror_of
from editloop.training.launch import ranks_per_node
from infra.cluster_access import ClusterAwayError, answering, log_in
from infra.settings import DEFAULT_IMAGE
from infra.trainjob_files import HEARTBEAT, fetch_result, is_delivered, send_job
from infra.trainjob_pods import JobPods

if TYPE_CHECKING:
    from kubeflow_trainer_api.models import IoK8sApiCoreV1EnvVar, TrainerV1alpha1RuntimePatch, TrainerV1alpha1TrainJob

log = logging.getLogger(__name__)

FORWARDED_VARIABLES = (
    "EDITLOOP_STAGE_RUN",
    "EDITLOOP_OBJECTS",
    "EDITLOOP_CHECKPOINTS",
    "MLFLOW_TRACKING_URI",
    "AWS_ENDPOINT_URL",
    "AWS_DEFAULT_REGION",
)
"""Variables that the pods of a TrainJob always get from this process. Secrets are passed by reference."""
RESOURCE = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "plural": "trainjobs"}
CURES = {
    403: "Bind the role editloop-trainjobs (infra/k8s/base/access.yaml) to the step's account",
    404: "Install Kubeflow Trainer v2, or correct EDITLOOP_TRAINJOB_NAMESPACE",
}
"""What to do where Kubernetes refuses a TrainJob."""
HEARTBEAT_SECONDS = 30.0
"""Time between two signs to the pods that this step still waits for them."""
AWAY_SECONDS = 600.0
"""Longest time for which Kubernetes or object storage may not answer: an upgrade of the control plane takes minutes."""
TRAINJOB_CONTAINER = "node"
"""Name of the ranks' container, and of its job, in Kubeflow Trainer's runtimes for torch."""
COMPLETE, FAILED = "Complete", "Failed"


class TrainJobSettings(EnvironmentSettings):
    """Where and with what TrainJobs run."""

    image: str = DEFAULT_IMAGE
    """Container image of the pods; it has the project installed."""
    trainjob_namespace: str = "default"
    """Namespace in which TrainJobs are created."""
    trainjob_runtime: str = "editloop-torch"
    """Name of the training runtime."""
    trainjob_runtime_kind: str = "TrainingRuntime"
    """Kind of the training runtime: TrainingRuntime of the namespace, or ClusterTrainingRuntime."""
    trainjob_nodes: int = Field(1, ge=1)
    """Pods that share the ranks."""
    trainjob_resources: dict[str, str] = Field(default_factory=dict)
    """What each pod gets, as JSON: {"cpu": "16", "memory": "128Gi", "nvidia.com/gpu": "8"}."""
    trainjob_secrets: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Secret and key of variables whose values are secret, as JSON: {"MLFLOW_TRACKING_PASSWORD": ["mlflow",
    "password"]}."""
    trainjob_variables: tuple[str, ...] = ()
    """Further variables that the pods get from this process, as JSON: ["NCCL_SOCKET_IFNAME", "HTTPS_PROXY"]."""
    trainjob_pod: dict[str, JsonValue] = Field(default_factory=dict)
    """What the pods get beside the runtime's template, as JSON: a PodSpecPatch of Kubeflow Trainer, such as
    {"nodeSelector": {"gpu": "h100"}}."""
    trainjob_retries: int = Field(2, ge=0)
    """Further jobs for a training whose pods were lost (evicted, preempted, deleted). Each goes on at the last
    checkpoint."""
    trainjob_poll_seconds: float = Field(5.0, gt=0)
    """Seconds between two polls of a TrainJob."""
    pod_name: str = ""
    """Name of the calling pod, which then owns the job: Kubernetes deletes the job with it."""
    pod_uid: str = ""
    """Kubernetes' uid of the calling pod."""


def launch_trainjob(module: str, job_file: Path, processes: int, settings: TrainJobSettings) -> None:
    """Run a training as a TrainJob, wait for its end, and fetch its result into the training's folder.

    Args:
        module: Python module that each rank runs.
        job_file: The training's job file, in the training's folder.
        processes: Number of ranks, over all pods.
        settings: Image, namespace, runtime and resources.

    Raises:
        EditLoopError: There is no cluster or no object storage, the cluster refuses the job, or the job fails.
    """
    from kubernetes import client

    objects, mirror = StoredFolderSettings().require("objects"), mirror_of(job_file.parent)
    if mirror is None:
        raise EditLoopError("EDITLOOP_CHECKPOINTS: no s3:// address. A TrainJob's pods keep their checkpoints there.")
    address = send_job(module, job_file, ranks_per_node(processes, settings.trainjob_nodes), objects)
    log_in()
    run = TrainJobRun(
        trainjob(address, processes, settings),
        client.CustomObjectsApi(),
        client.CoreV1Api(),
        settings,
        is_delivered=lambda: is_delivered(mirror, address),
        beat=lambda: mirror.remote.write(HEARTBEAT, datetime.now(UTC).isoformat().encode()),
    )
    if not is_delivered(mirror, address):  # by the job of an earlier try, which may be gone
        run.wait()
    fetch_result(mirror, address)
    run.remove()


def trainjob(address: str, processes: int, settings: TrainJobSettings) -> "TrainerV1alpha1TrainJob":
    """Return the TrainJob that runs a training.

    Its name depends only on the image and the training, so a retry finds its job.

    Args:
        address: Address of the training in object storage.
        processes: Number of ranks, over all pods.
        settings: Image, namespace, runtime and resources.

    Raises:
        EditLoopError: The ranks cannot be shared equally by the pods.
    """
    from kubeflow_trainer_api import models

    command = ["python", "-m", "infra.trainjob_node", address]
    metadata = models.IoK8sApimachineryPkgApisMetaV1ObjectMeta(
        name=f"editloop-{sha256_json([settings.image, command])[:16]}", namespace=settings.trainjob_namespace
    )
    if settings.pod_name and settings.pod_uid:
        owner = models.IoK8sApimachineryPkgApisMetaV1OwnerReference(
            apiVersion="v1", kind="Pod", name=settings.pod_name, uid=settings.pod_uid
        )
        metadata.owner_references = [owner]
    amounts = {
        name: models.IoK8sApimachineryPkgApiResourceQuantity(amount)
        for name, amount in settings.trainjob_resources.items()
    }
    trainer = models.TrainerV1alpha1Trainer(
        image=settings.image,
        command=command,
        numNodes=settings.trainjob_nodes,
        numProcPerNode=ranks_per_node(processes, settings.trainjob_nodes),
        env=_environment(settings),
        resourcesPerNode=models.IoK8sApiCoreV1ResourceRequirements(requests=amounts, limits=amounts),
    )
    runtime = models.TrainerV1alpha1RuntimeRef(
        apiGroup=RESOURCE["group"], kind=settings.trainjob_runtime_kind, name=settings.trainjob_runtime
    )
    return models.TrainerV1alpha1TrainJob(
        apiVersion=f"{RESOURCE['group']}/{RESOURCE['version']}",
        kind="TrainJob",
        metadata=metadata,
        spec=models.TrainerV1alpha1TrainJobSpec(
            runtimeRef=runtime, trainer=trainer, runtimePatches=[_pod_patch(settings.trainjob_pod)]
        ),
    )


def _pod_patch(pod: dict[str, JsonValue]) -> "TrainerV1alpha1RuntimePatch":
    from kubeflow_trainer_api import models

    patch = models.TrainerV1alpha1PodSpecPatch.from_dict(pod)
    template = models.TrainerV1alpha1JobTemplatePatch(
        spec=models.TrainerV1alpha1JobSpecPatch(template=models.TrainerV1alpha1PodTemplatePatch(spec=patch))
    )
    job = models.TrainerV1alpha1ReplicatedJobPatch(name=TRAINJOB_CONTAINER, template=template)
    return models.TrainerV1alpha1RuntimePatch(
        manager="editloop.io/step",
        trainingRuntimeSpec=models.TrainerV1alpha1TrainingRuntimeSpecPatch(
            template=models.TrainerV1alpha1JobSetTemplatePatch(
                spec=models.TrainerV1alpha1JobSetSpecPatch(replicatedJobs=[job])
            )
        ),
    )


def _environment(settings: TrainJobSettings) -> "list[IoK8sApiCoreV1EnvVar]":
    from kubeflow_trainer_api import models

    plain = [
        models.IoK8sApiCoreV1EnvVar(name=name, value=os.environ[name])
        for name in sorted({*FORWARDED_VARIABLES, *settings.trainjob_variables} - settings.trainjob_secrets.keys())
        if os.environ.get(name)
    ]
    return plain + [
        models.IoK8sApiCoreV1EnvVar(
            name=name,
            valueFrom=models.IoK8sApiCoreV1EnvVarSource(
                secretKeyRef=models.IoK8sApiCoreV1SecretKeySelector(name=secret, key=key)
            ),
        )
        for name, (secret, key) in settings.trainjob_secrets.items()
    ]


class JobState(NamedTuple):
    """What Kubernetes says of a job."""

    ended: str
    """COMPLETE, FAILED, or empty."""
    reason: str
    """Why it failed."""
    is_going: bool
    """Whether it is being deleted."""


class TrainJobRun:
    """A TrainJob from its creation to its end."""

    def __init__(
        self,
        job: "TrainerV1alpha1TrainJob",
        api: Any,
        core: Any,
        settings: TrainJobSettings,
        *,
        is_delivered: Callable[[], bool],
        beat: Callable[[], object],
    ):
        """Take the job.

        Args:
            job: The TrainJob.
            api: The CustomObjectsApi of the Kubernetes client.
            core: The CoreV1Api.
            settings: Namespace, retries and the pause between two polls.
            is_delivered: Tells whether the job's result is in object storage.
            beat: Shows the pods that this step still waits for them.
        """
        self.job, self.api, self.settings = job, api, settings
        self.is_delivered, self.beat = is_delivered, beat
        self.name = str(job.metadata.name)
        self.pods = JobPods(core, self.name, settings.trainjob_namespace)
        self.resource = RESOURCE | {"namespace": settings.trainjob_namespace}
        self.lost_jobs = 0
        self._is_ours = False
        """Whether this call created the job that is there."""
        self._beaten_at = 0.0
        self._away_since: float | None = None
        """When Kubernetes or object storage stopped to answer."""

    def wait(self) -> None:
        """Create the job, or find the one of its name, and wait until its result is delivered.

        A job from an earlier try is deleted and created again where it failed, or where its result is gone. So is one
        whose pods were lost, `trainjob_retries` times. The training then continues at its checkpoints. The pods' log
        lines are printed as they come, and a pod that cannot start is reported with Kubernetes' reason. Where
        Kubernetes or the storage does not answer, the job goes on, and this call asks again for AWAY_SECONDS. An
        interrupt deletes the job: its pods save and end.

        Raises:
            EditLoopError: The job failed, cannot start, or somebody deleted it; or the cluster refuses it.
        """
        try:
            while not self._poll():
                time.sleep(self.settings.trainjob_poll_seconds)
        except BaseException:
            self.remove()
            raise

    def _poll(self) -> bool:
        """Return whether the result is delivered; not yet, where Kubernetes or the storage is away for a while.

        Raises:
            ClusterAwayError: Kubernetes has been away for AWAY_SECONDS.
            StorageError: Object storage has.
            EditLoopError: `wait` says when.
        """
        try:
            self._beat()
            is_over = self._look()
        except (ClusterAwayError, StorageError) as error:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                log.warning("%s goes on; this step waits until it can ask again: %s", self, error)
            if now - self._away_since >= AWAY_SECONDS:
                raise
            return False
        self._away_since = None
        return is_over

    def _look(self) -> bool:
        """Return whether the result is delivered. Create the job where there is none, or none that can deliver it."""
        state = self._state()
        if state is None:
            if self._is_ours:
                raise EditLoopError(f"{self} was deleted before it ended. Run the step again.")
            self._is_ours = self._create()
        elif not state.is_going:
            self.pods.look()
            if state.ended == COMPLETE and self.is_delivered():
                return True
            if state.ended:
                self._replace(state)
        return False

    def _replace(self, state: JobState) -> None:
        """Delete a job that ended without a result, so that another one is created.

        Args:
            state: The job's.

        Raises:
            EditLoopError: This call created it, and its pods were not just lost.
        """
        if self._is_ours:
            if state.ended == COMPLETE:
                raise EditLoopError(
                    f"{self} ended without a result. Look whether its pods can write to EDITLOOP_CHECKPOINTS."
                )
            end = self.pods.first_end
            if end is None or not end.is_lost or self.lost_jobs == self.settings.trainjob_retries:
                raise EditLoopError(
                    f"{self} failed: {end.reason if end else state.reason}. Its log is above; run the step again: it "
                    "goes on at the last checkpoint."
                )
            self.lost_jobs += 1
            self._is_ours = False  # first: where Kubernetes does not answer the deletion, the job may be gone
            log.warning("%s: %s; started again, it goes on at the last checkpoint", self, end.reason)
        self._delete()
        self.pods.forget()

    def remove(self) -> None:
        """Delete the job and, before it is gone, its pods. Where Kubernetes does not do so, a warning says that."""
        try:
            self._delete()
        except EditLoopError as error:
            log.warning("%s is not deleted: %s", self, error)

    def __str__(self) -> str:
        return f"TrainJob {self.settings.trainjob_namespace}/{self.name}"

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beaten_at >= HEARTBEAT_SECONDS or not self._beaten_at:
            self.beat()
            self._beaten_at = now

    def _create(self) -> bool:
        """Create the job; return whether this call made it, and no earlier one."""
        from kubernetes.client.exceptions import ApiException

        with answering(CURES):
            try:
                self.api.create_namespaced_custom_object(**self.resource, body=self.job.to_dict())
            except ApiException as error:
                if error.status != 409:
                    raise
                return False
        return True

    def _state(self) -> JobState | None:
        """Return the job's state; None where there is no such job."""
        from kubernetes.client.exceptions import ApiException

        with answering(CURES):
            try:
                found = self.api.get_namespaced_custom_object(**self.resource, name=self.name)
            except ApiException as error:
                if error.status == 404:
                    return None
                raise
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] in (COMPLETE, FAILED) and condition["status"] == "True":
                reason = f"{condition.get('reason')}: {condition.get('message')}"
                return JobState(condition["type"], reason, "deletionTimestamp" in found["metadata"])
        return JobState("", "", "deletionTimestamp" in found["metadata"])

    def _delete(self) -> None:
        from kubernetes.client.exceptions import ApiException

        with answering(CURES):
            try:
                self.api.delete_namespaced_custom_object(
                    **self.resource, name=self.name, propagation_policy="Foreground"
                )
            except ApiException as error:
                if error.status != 404:
                    raise

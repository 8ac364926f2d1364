"""Launch of distributed work, with one command line: in local processes, or as a Kubeflow Trainer TrainJob.

`EDITLOOP_LAUNCHER=local` (the default) starts torchrun on this machine. `trainjob` creates a Trainer v2 TrainJob, whose
pods run the same module with the same arguments. Paths in the arguments must then lie on a volume that the runtime
(`EDITLOOP_TRAINJOB_RUNTIME`) mounts at the same path as in the calling pod.
"""

import os
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from editloop.content import sha256_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.training.launch import launch_ranks, torchrun_arguments
from infra.settings import DEFAULT_IMAGE

FORWARDED_VARIABLES = ("EDITLOOP_STAGE_RUN", "MLFLOW_TRACKING_URI")
"""Variables that the pods of a TrainJob get from this process. Credentials come from the runtime's own secret."""


class LaunchSettings(EnvironmentSettings):
    """Where distributed work runs, and how."""

    launcher: Literal["local", "trainjob"] = "local"
    """Where distributed work runs: processes of this machine, or pods of a TrainJob."""
    image: str = DEFAULT_IMAGE
    """Container image of the pods; it has the project installed."""
    trainjob_namespace: str = "default"
    """Namespace in which TrainJobs are created."""
    trainjob_runtime: str = "torch-distributed"
    """Name of the ClusterTrainingRuntime; its pods mount the volume that holds the stages' folders."""
    trainjob_poll_seconds: float = Field(5.0, gt=0)
    """Seconds between two polls of a TrainJob."""


def launch(
    module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
) -> None:
    """Run `python -m MODULE ARGUMENTS` as ranks of one torch.distributed job, and wait for its end.

    With local processes, an interrupt stops all ranks.

    Args:
        module: Python module that each rank runs.
        arguments: Its command-line arguments. Equal arguments name the same TrainJob, so they must hold nothing random.
        processes: Number of ranks.
        log: File that gets the ranks' output besides stdout; local ranks only. None for none.
        result: File that the job writes. A TrainJob that an earlier try completed is created again where this file is
            gone. None: no such check.

    Raises:
        EditLoopError: The job fails; local ranks give the end of the log.
    """
    settings = LaunchSettings()
    if settings.launcher == "trainjob":
        _launch_trainjob(torchrun_arguments(module, arguments, processes), processes, settings, result)
    else:
        launch_ranks(module, arguments, processes=processes, log=log, result=result)


def trainjob_manifest(command: list[str], processes: int, settings: LaunchSettings) -> dict[str, Any]:
    """Return the manifest of the TrainJob that runs a command.

    Its name depends only on the image and the command, so a retry finds its job.

    Args:
        command: Arguments of `python`.
        processes: Number of ranks.
        settings: Image, namespace and runtime.
    """
    name = f"editloop-{sha256_json([settings.image, command])[:16]}"
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": name, "namespace": settings.trainjob_namespace},
        "spec": {
            "runtimeRef": {"name": settings.trainjob_runtime},
            "trainer": {
                "image": settings.image,
                "command": ["python", *command],
                "numNodes": 1,
                "numProcPerNode": processes,
                "env": [
                    {"name": name, "value": value}
                    for name in ("OMP_NUM_THREADS", *FORWARDED_VARIABLES)
                    if (value := {**os.environ, "OMP_NUM_THREADS": "1"}.get(name))
                ],
            },
        },
    }


def _launch_trainjob(command: list[str], processes: int, settings: LaunchSettings, result: Path | None) -> None:
    from kubernetes import client, config

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    job = trainjob_manifest(command, processes, settings)
    run_trainjob(job, client.CustomObjectsApi(), settings.trainjob_poll_seconds, result)


def run_trainjob(job: dict[str, Any], api: Any, poll_seconds: float, result: Path | None = None) -> None:
    """Create a TrainJob, or find the one of its name, and wait until it completes.

    A job from an earlier try is deleted and created again where it failed, or where it completed and its `result` is
    gone. The training then continues at its checkpoints.

    Args:
        job: Manifest of the TrainJob.
        api: The CustomObjectsApi of the Kubernetes client.
        poll_seconds: Seconds between two polls.
        result: File that the job writes; None: do not check for it.

    Raises:
        EditLoopError: The job failed, or somebody deleted it.
    """
    from kubernetes.client.exceptions import ApiException

    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    resource = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "namespace": namespace, "plural": "trainjobs"}

    def create() -> bool:
        try:
            api.create_namespaced_custom_object(**resource, body=job)
        except ApiException as error:
            if error.status != 409:  # 409: an earlier try created the job
                raise
            return False
        return True

    created = create()
    while True:
        try:
            state = api.get_namespaced_custom_object(**resource, name=name).get("status", {})
        except ApiException as error:
            if error.status == 404 and not created:  # an earlier try's job is deleted by now
                created = create()
                continue
            if error.status == 404:
                raise EditLoopError(
                    f"TrainJob {namespace}/{name} was deleted before it ended. Run the step again."
                ) from error
            raise
        states = state.get("conditions", [])
        conditions = {condition["type"]: condition for condition in states if condition.get("status") == "True"}
        is_lost = not created and result is not None and not result.exists()
        if "Complete" in conditions and not is_lost:
            return
        if conditions.keys() & {"Complete", "Failed"} and not created:
            try:
                api.delete_namespaced_custom_object(**resource, name=name)
            except ApiException as error:
                if error.status != 404:
                    raise
        elif failed := conditions.get("Failed"):
            raise EditLoopError(
                f"TrainJob {namespace}/{name} failed: {failed.get('reason')}: {failed.get('message')}. "
                f"Read its pods' logs, then run the step again: it goes on at the last checkpoint."
            )
        time.sleep(poll_seconds)

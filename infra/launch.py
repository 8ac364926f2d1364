"""Starting distributed work: the same command line in local processes or as a Kubeflow Trainer TrainJob.

`EDITLOOP_LAUNCHER=local` (the default) starts torchrun on this machine; `trainjob` makes a Trainer v2 TrainJob, whose
pods run the same module with the same arguments. Paths among the arguments must then lie on a volume that the runtime
(`EDITLOOP_TRAINJOB_RUNTIME`) mounts at the same place as the calling pod does.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import Field

from infra.content import sha256_json
from infra.errors import EditLoopError
from infra.settings import DEFAULT_IMAGE, EnvironmentSettings

TAIL_LINES = 40
GRACE_SECONDS = 10.0
FORWARDED_VARIABLES = ("EDITLOOP_STAGE_RUN", "MLFLOW_TRACKING_URI")
"""Variables that the pods of a TrainJob get from here; credentials come from the runtime's own secret."""


class LaunchSettings(EnvironmentSettings):
    """Where distributed work runs, and how."""

    launcher: Literal["local", "trainjob"] = "local"
    """Where distributed work runs: processes of this machine, or pods of a TrainJob."""
    image: str = DEFAULT_IMAGE
    """Container image of the pods; it has the project installed."""
    trainjob_namespace: str = "default"
    """Namespace in which TrainJobs are made."""
    trainjob_runtime: str = "torch-distributed"
    """Name of the ClusterTrainingRuntime; its pods mount the volume that holds the stages' folders."""
    trainjob_poll_seconds: float = Field(5.0, gt=0)
    """Seconds between two looks at a TrainJob."""
    stop_seconds: float = Field(60.0, ge=0)
    """How long ranks that are stopped may take to save what they have, before they are killed."""
    supervisor_pid: int | None = Field(None, ge=1)
    """Set for the steps of a local run: a step ends when this process is gone."""


def launch(
    module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
) -> None:
    """Run `python -m MODULE ARGUMENTS` as ranks of one torch.distributed job, and wait for its end.

    An interrupt stops all ranks.

    Args:
        module: Python module that each rank runs.
        arguments: Its command-line arguments. Equal ones make an equal TrainJob, so they hold nothing random.
        processes: Number of ranks.
        log: File that gets the ranks' output beside stdout; local ranks only.
        result: File that the job leaves. A TrainJob that completed in an earlier try, and whose result is no longer
            there, is made anew.

    Raises:
        EditLoopError: The job does not succeed; with the log's tail.
    """
    settings = LaunchSettings()
    if settings.launcher == "trainjob":
        _launch_trainjob(torchrun_arguments(module, arguments, processes), processes, settings, result)
    else:
        _launch_local(torchrun_arguments(module, arguments, processes, port=_free_port()), log, settings.stop_seconds)


def torchrun_arguments(module: str, arguments: list[str], processes: int, port: int | None = None) -> list[str]:
    """The job's command line after the interpreter; without `port` torchrun takes it from its environment."""
    port_option = ["--master-port", str(port)] if port else []
    options = ["--nproc-per-node", str(processes), *port_option]
    return ["-m", "torch.distributed.run", *options, "-m", module, *arguments]


def stop_tree(process: psutil.Process, grace: float = GRACE_SECONDS) -> None:
    """End a process and all below it: asked first, killed after `grace` seconds."""
    try:
        tree = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in tree:
        _quietly(member.terminate)
    for member in psutil.wait_procs(tree, timeout=grace)[1]:
        _quietly(member.kill)


def end_with_supervisor() -> None:
    """In a step of a local run: leave, with all started processes, as soon as the run's own process is gone.

    A runner that is killed outright cannot stop its steps; without this they would write on beside the next run.
    """
    pid = LaunchSettings().supervisor_pid
    if pid is None:
        return

    def watch() -> None:
        while psutil.pid_exists(pid):
            time.sleep(0.5)
        for child in psutil.Process().children(recursive=True):
            _quietly(child.kill)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="supervisor-watch").start()


def _quietly(action: Any) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        pass


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _terminate_with_parent() -> None:
    """Runs in the child before exec: Linux sends it SIGTERM when the starting process dies (PR_SET_PDEATHSIG = 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _launch_local(command: list[str], log: Path | None, grace: float) -> None:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(round(grace)),
    }
    process = subprocess.Popen(
        [sys.executable, *command],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=_terminate_with_parent if sys.platform == "linux" else None,
    )
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    failed = False
    if log:
        log.parent.mkdir(parents=True, exist_ok=True)
    try:
        assert process.stdout is not None
        with (log or Path(os.devnull)).open("w") as copy:
            for line in process.stdout:
                sys.stdout.write(line)
                sys.stdout.flush()
                copy.write(line)
                failed = failed or "failed (exitcode" in line  # from here on torchrun tells its own story
                if not failed:
                    tail.append(line)
        status = process.wait()
    except BaseException:
        stop_tree(psutil.Process(process.pid), grace)
        raise
    if status:
        raise EditLoopError(
            f"{' '.join(command)}: ended with status {status}. The ranks' last lines:\n{''.join(tail)}"
            + (f"The whole log is {log}." if log else "")
        )


def trainjob_manifest(command: list[str], processes: int, settings: LaunchSettings) -> dict[str, Any]:
    """The TrainJob that runs `command`; equal commands in equal images give an equal name, so a retry finds its job."""
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
    """Create the job or find the one of its name, and wait: "Complete" is success, any other terminal state raises.

    A job of this name that failed before, or whose `result` is gone, is deleted and made anew: it goes on at its
    checkpoints.
    """
    from kubernetes.client.exceptions import ApiException

    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    resource = {"group": "trainer.kubeflow.org", "version": "v1alpha1", "namespace": namespace, "plural": "trainjobs"}

    def create() -> bool:
        try:
            api.create_namespaced_custom_object(**resource, body=job)
        except ApiException as error:
            if error.status != 409:  # 409: the job of an earlier try is there
                raise
            return False
        return True

    created = create()
    while True:
        try:
            state = api.get_namespaced_custom_object(**resource, name=name).get("status", {})
        except ApiException as error:
            if error.status == 404 and not created:  # the failed one of an earlier try has gone
                created = create()
                continue
            if error.status == 404:
                raise EditLoopError(
                    f"TrainJob {namespace}/{name} was deleted before it ended. Run the step again."
                ) from error
            raise
        conditions = {
            condition["type"]: condition
            for condition in state.get("conditions", [])
            if condition.get("status") == "True"
        }
        is_lost = not created and result is not None and not result.exists()
        if "Complete" in conditions and not is_lost:
            return
        if conditions.keys() & {"Complete", "Failed"} and not created:
            try:
                api.delete_namespaced_custom_object(**resource, name=name)
            except ApiException as error:
                if error.status != 404:
                    raise
            time.sleep(poll_seconds)
            continue
        if failed := conditions.get("Failed"):
            raise EditLoopError(
                f"TrainJob {namespace}/{name} failed: {failed.get('reason')}: {failed.get('message')}. "
                f"Read its pods' logs, then run the step again: it goes on at the last checkpoint."
            )
        time.sleep(poll_seconds)

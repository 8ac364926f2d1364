"""Kubeflow Trainer on this machine: each pod of a TrainJob is a process with a disk and an environment of its own.

It answers as the two Kubernetes clients do that `infra.trainjob` uses. A pod runs the module that the job names, from a
fork server; its one rank runs in the pod's own process instead of under torchrun.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from kubeflow_trainer_api.models import TrainerV1alpha1TrainJob
from kubernetes.client.exceptions import ApiException

from tests.forked_ranks import PRELOADED, free_port


class LocalTrainer:
    """Runs one TrainJob at a time."""

    def __init__(self, folder: Path, secrets: dict[tuple[str, str], str]):
        """Take the place of the pods' disks.

        Args:
            folder: Folder of the disks and logs.
            secrets: Values by Secret and key.
        """
        self.folder, self.secrets = folder, secrets
        self.pods: dict[str, BaseProcess] = {}
        self.deleted: set[str] = set()
        self.created = 0

    def create_namespaced_custom_object(self, *, body: dict[str, Any], **resource: str) -> None:
        if self.pods:
            raise ApiException(status=409)
        trainer = TrainerV1alpha1TrainJob.from_dict(body).spec.trainer
        assert trainer.num_proc_per_node == 1
        variables = {"PYTHONUNBUFFERED": "1", "PATH": os.environ["PATH"]}
        for variable in trainer.env:
            reference = variable.value_from and variable.value_from.secret_key_ref
            variables[variable.name] = self.secrets[reference.name, reference.key] if reference else variable.value
        self.created += 1
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        for node in range(trainer.num_nodes):
            disk = self.folder / f"try-{self.created}" / f"node-{node}"
            disk.mkdir(parents=True)
            place = {"RANK": str(node), "GROUP_RANK": str(node), "LOCAL_RANK": "0", "PET_NODE_RANK": str(node)}
            own = place | {"WORLD_SIZE": str(trainer.num_nodes), "TMPDIR": str(disk)}
            pod = context.Process(target=_run_pod, args=(trainer.command, variables | address | own))
            pod.start()
            self.pods[f"node-{node}"] = pod

    def get_namespaced_custom_object(self, **resource: str) -> dict[str, Any]:
        if not self.pods:
            raise ApiException(status=404)
        codes = [pod.exitcode for pod in self.pods.values()]
        failed = {"type": "Failed", "status": "True", "reason": "JobsFailed", "message": f"{codes}"}
        ended = {"type": "Complete", "status": "True"} if codes == [0] * len(codes) else None
        conditions = [failed] if any(codes) else [ended] if ended else []
        return {"metadata": {}, "status": {"conditions": conditions}}

    def delete_namespaced_custom_object(self, **resource: str) -> None:
        for pod in self.pods.values():
            pod.terminate()
        for pod in self.pods.values():
            pod.join()
        self.pods, self.deleted = {}, set()

    def delete_pod(self, name: str) -> None:
        """Take a pod away at once, as the loss of its node does."""
        self.deleted.add(name)
        pod = self.pods[name]
        assert pod.pid is not None
        os.kill(pod.pid, signal.SIGKILL)
        pod.join()

    def list_namespaced_pod(self, namespace: str, label_selector: str) -> Any:
        return SimpleNamespace(
            items=[_described(name, pod) for name, pod in self.pods.items() if name not in self.deleted]
        )

    def read_namespaced_pod_log(self, name: str, namespace: str, **options: Any) -> str:
        node = self.folder / f"try-{self.created}" / name
        lines = (node / "log").read_text().splitlines() if (node / "log").exists() else []
        return "".join(f"{number:06d} {line}\n" for number, line in enumerate(lines, 1))


def _described(name: str, pod: BaseProcess) -> Any:
    """A pod as the client returns it."""
    ended = SimpleNamespace(reason="Error", exit_code=pod.exitcode, finished_at=datetime.now(UTC))
    state = SimpleNamespace(waiting=None, terminated=ended if pod.exitcode else None)
    status = SimpleNamespace(container_statuses=[SimpleNamespace(state=state)], conditions=[], reason=None)
    return SimpleNamespace(metadata=SimpleNamespace(name=name, deletion_timestamp=None), status=status)


def _run_pod(command: list[str], variables: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    tempfile.tempdir = None
    log = os.open(Path(variables["TMPDIR"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    assert command[:2] == ["python", "-m"]
    sys.argv[1:] = command[3:]

    def run_here(torchrun: list[str], environment: Mapping[str, str]) -> None:
        start = len(torchrun) - 1 - torchrun[::-1].index("-m")
        with patch.object(sys, "argv", torchrun[start + 1 :]):
            runpy.run_module(torchrun[start + 1], run_name="__main__")

    soon = patch("editloop.training.checkpoint_mirror.MIRROR_SECONDS", 0.1)
    with soon, patch("editloop.training.launch.run_torchrun", run_here):
        runpy.run_module(command[2], run_name="__main__")

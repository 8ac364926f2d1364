"""The pods of a TrainJob: their log lines as they come, why one does not start, and why one ended."""

import logging
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from editloop.errors import EditLoopError
from infra.cluster_access import answering

log = logging.getLogger(__name__)

POD_LABEL = "jobset.sigs.k8s.io/jobset-name"
"""Label by which the pods of a TrainJob are found; its value is the job's name."""
STUCK_SECONDS = 300.0
"""Longest time that a pod may be unable to start for a reason that waiting does not cure."""
LOG_SECONDS = 600
"""How far back each look at a log reads."""
HOPELESS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""Reasons for which a container does not start, whatever the cluster does."""
LOST = ("Evicted", "Preempting", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
"""Reasons of a pod's end that are the cluster's, not the training's."""


class CannotStartError(EditLoopError):
    """A pod cannot start, whatever the cluster does."""


class PodEnd(NamedTuple):
    """How a pod ended that should not have."""

    time: datetime
    reason: str
    is_lost: bool
    """Whether the cluster or a person took it away, rather than its training failed."""


class JobPod(NamedTuple):
    """A pod as Kubernetes tells it."""

    name: str
    waiting: str
    """Why it does not run yet, in Kubernetes' word; empty where it runs or has ended."""
    message: str
    end: PodEnd | None
    """None where it runs, or ended well."""


class JobPods:
    """The pods of one job."""

    def __init__(self, core: Any, job: str, namespace: str):
        """Take the job.

        Args:
            core: The CoreV1Api of the Kubernetes client.
            job: Name of the TrainJob.
            namespace: Its namespace.
        """
        self.core, self.job, self.namespace = core, job, namespace
        self.forget()

    def forget(self) -> None:
        """Begin anew, for the next job of the name."""
        self.first_end: PodEnd | None = None
        """The first end of a pod. When one ends, the others do."""
        self._waiting: dict[str, str] = {}
        """Why each pod did not run at the last look."""
        self._printed: dict[str, str] = {}
        """Time stamp of each pod's last printed line."""
        self._stuck_since: float | None = None

    def look(self) -> None:
        """Print what is new in the logs, and why pods do not start.

        Raises:
            CannotStartError: A pod cannot start, and could not for STUCK_SECONDS.
        """
        with answering():
            listed = self.core.list_namespaced_pod(self.namespace, label_selector=f"{POD_LABEL}={self.job}").items
        found = [_job_pod(pod) for pod in listed]
        for pod in found:
            if pod.waiting and self._waiting.get(pod.name) != pod.waiting:
                log.warning("%s does not start: %s: %s", pod.name, pod.waiting, pod.message)
            if not pod.waiting:
                self._print_log(pod.name)
        ends = [pod.end for pod in found if pod.end]
        if gone := self._waiting.keys() - {pod.name for pod in found}:
            ends.append(PodEnd(datetime.now(UTC), f"{min(gone)} was deleted", True))
        self._waiting = {pod.name: pod.waiting for pod in found}
        if not self.first_end and ends:
            self.first_end = min(ends)
        self._check_start([pod for pod in found if pod.waiting in HOPELESS])

    def _check_start(self, hopeless: list[JobPod]) -> None:
        if not hopeless:
            self._stuck_since = None
            return
        self._stuck_since = self._stuck_since or time.monotonic()
        if time.monotonic() - self._stuck_since >= STUCK_SECONDS:
            pod = hopeless[0]
            raise CannotStartError(
                f"TrainJob {self.namespace}/{self.job} cannot start: {pod.name}: {pod.waiting}: {pod.message}"
            )

    def _print_log(self, name: str) -> None:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            text: str = self.core.read_namespaced_pod_log(
                name, self.namespace, timestamps=True, since_seconds=LOG_SECONDS
            )
        except (ApiException, HTTPError):  # its container is being made, or its node is away
            return
        for line in text.splitlines():
            stamp, _, words = line.partition(" ")
            if stamp > self._printed.get(name, ""):
                self._printed[name] = stamp
                print(words, flush=True)


def _job_pod(pod: Any) -> JobPod:
    """Return a pod as Kubernetes' client describes it."""
    name: str = pod.metadata.name
    conditions = {condition.type: condition for condition in pod.status.conditions or [] if condition.status}
    waiting, message = "", ""
    ends: list[PodEnd] = []
    for container in pod.status.container_statuses or []:
        state = container.state
        if state and state.waiting and state.waiting.reason not in (None, "ContainerCreating", "PodInitializing"):
            waiting, message = state.waiting.reason, state.waiting.message or ""
        if state and state.terminated and state.terminated.exit_code:
            ended = state.terminated
            reason = f"{name}: {ended.reason or 'Error'}, exit code {ended.exit_code}"
            ends.append(PodEnd(ended.finished_at, reason, False))
    scheduled, disrupted = conditions.get("PodScheduled"), conditions.get("DisruptionTarget")
    if scheduled and scheduled.status == "False":
        waiting, message = scheduled.reason or "Unschedulable", scheduled.message or ""
    if disrupted and disrupted.status == "True":
        ends.append(PodEnd(disrupted.last_transition_time, f"{name}: {disrupted.reason}", True))
    elif pod.metadata.deletion_timestamp:
        grace = timedelta(seconds=pod.metadata.deletion_grace_period_seconds or 0)
        ends.append(PodEnd(pod.metadata.deletion_timestamp - grace, f"{name} was deleted", True))
    elif pod.status.reason in LOST:
        ends.append(PodEnd(datetime.min.replace(tzinfo=UTC), f"{name}: {pod.status.reason}", True))
    return JobPod(name, waiting, message, min(ends, default=None))

"""What a cluster lacks for a deployment profile's runs, all of it at once, each with its cure."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from editloop.errors import EditLoopError
from infra.cluster_access import answering, log_in
from infra.doctor import Check
from infra.profile import Profile
from pipelines.kfp_server import KfpServer, step_titles
from pipelines.kfp_settings import KfpSettings

RUN_ID_LABEL = "pipeline/runid"
NODE_ANNOTATION = "workflows.argoproj.io/node-name"
"""Annotation with a pod's place in the graph: PIPELINE-xxxxx(0).root(0).PIPELINE-steps(0).STEP(0).executor(0)."""
OF_THE_LAUNCHER = re.compile(r"^([IWEF]\d{4} |time=|Error: exit status|\[KFP Executor)")
"""Beginning of lines that KFP's and Argo's own programs write around a step's."""
KFP_ROOT_CONFIG = "kfp-launcher"
"""ConfigMap in which KFP's launcher finds the endpoint and the log-in of object storage."""


def check_cluster(settings: KfpSettings, profile: Profile) -> list[Check]:
    """Check the Kubeflow Pipelines server, and what the profile names in its namespace.

    Args:
        settings: Address of the server.
        profile: The deployment profile.

    Raises:
        EditLoopError: There is no access to a cluster.
    """
    checks = [_server_check(settings, profile)]
    core = _core_api()
    namespace = profile.namespace

    def add(kind: str, name: str, keys: set[str] | None, needed: Iterable[str] = (), advice: str = "") -> None:
        label, create = f"{kind} {name}", advice or f"kubectl -n {namespace} create {kind} {name}"
        if keys is None:
            checks.append(Check(label, False, "missing", create))
            return
        missing = sorted(set(needed) - keys)
        state = f"lacks {', '.join(missing)}" if missing else "there"
        checks.append(Check(label, not missing, state, f"add the keys: kubectl -n {namespace} edit {kind} {name}"))

    there = _keys(lambda: core.read_namespace(namespace))
    add("namespace", namespace, there, advice=f"kubectl create namespace {namespace}")
    if there is None:
        return checks
    account = profile.service_account
    add("serviceaccount", account, _keys(lambda: core.read_namespaced_service_account(account, namespace)))
    secrets = {secret.secret: set(secret.variables.values()) for secret in profile.secrets}
    for name in [*(folder.secret for folder in profile.secret_folders), *profile.pull_secrets]:
        secrets.setdefault(name, set())
    for name, needed in secrets.items():
        add("secret", name, _keys(partial(core.read_namespaced_secret, name, namespace)), needed)
    for name, variables in profile.config_maps.items():
        keys = _keys(partial(core.read_namespaced_config_map, name, namespace))
        add("configmap", name, keys, variables.values())
    if not profile.storage.pipeline_root.startswith("minio://"):
        advice = "it names endpoint, region and log-in of the storage to KFP: infra/k8s/base/storage.yaml"
        keys = _keys(lambda: core.read_namespaced_config_map(KFP_ROOT_CONFIG, namespace))
        add("configmap", KFP_ROOT_CONFIG, keys, ["providers"], advice)
    return checks + list(_gpu_checks(core, profile))


class StepLog(NamedTuple):
    """End of the log of a step's pod."""

    step: str
    """Name of the step in the run: its stage's, with dashes."""
    title: str
    text: str


def pod_logs(namespace: str, run_id: str, tail: int) -> Iterator[StepLog]:
    """Yield the ends of the logs of a run's steps.

    Args:
        namespace: Namespace of the pods.
        run_id: KFP's id of the run.
        tail: Lines of each pod.

    Raises:
        EditLoopError: There is no access to a cluster.
    """
    core = _core_api()
    with answering():
        pods = core.list_namespaced_pod(namespace, label_selector=f"{RUN_ID_LABEL}={run_id}").items
    titles = step_titles()
    for pod in sorted(pods, key=lambda pod: pod.metadata.creation_timestamp):
        node: str = (pod.metadata.annotations or {}).get(NODE_ANNOTATION, "")
        names = [part.partition("(")[0] for part in node.split(".")]
        step = next((name for name in reversed(names) if name in titles), "")
        if step and names[-1] == "executor":
            with answering():
                text: str = core.read_namespaced_pod_log(pod.metadata.name, namespace, container="main")
            lines = [line for line in text.splitlines() if not OF_THE_LAUNCHER.match(line)]
            yield StepLog(step, titles[step], "\n".join(lines[-tail:]))


def _server_check(settings: KfpSettings, profile: Profile) -> Check:
    advice = "set EDITLOOP_KFP_ENDPOINT to its address, such as http://127.0.0.1:8888 behind kubectl port-forward"
    if not settings.kfp_endpoint:
        return Check("Kubeflow Pipelines", False, "EDITLOOP_KFP_ENDPOINT is not set", advice)
    try:
        KfpServer(settings, profile)
    except EditLoopError as error:
        return Check("Kubeflow Pipelines", False, str(error), advice)
    return Check("Kubeflow Pipelines", True, settings.kfp_endpoint, "")


def _gpu_checks(core: Any, profile: Profile) -> Iterator[Check]:
    """Check that a node has the GPUs that a stage's pod asks for."""
    needs: dict[tuple[str, int], list[str]] = {}
    for stage in profile.stages:
        resources = profile.resources(stage)
        if resources.gpus:
            needs.setdefault((resources.gpu_kind, resources.gpus), []).append(stage)
    if not needs:
        return
    with answering():
        nodes: list[dict[str, str]] = [node.status.allocatable or {} for node in core.list_node().items]
    for (kind, count), stages in needs.items():
        most = max((int(node.get(kind, 0)) for node in nodes), default=0)
        advice = f"add such a node, or lower `gpus` of {', '.join(stages)} in the profile"
        yield Check(f"{count} {kind} on a node", most >= count, f"the largest node has {most}", advice)


def _keys(read: Callable[[], Any]) -> set[str] | None:
    """Return the keys of an object's data, which is empty for most kinds; None where the cluster has no such object."""
    from kubernetes.client.exceptions import ApiException

    with answering():
        try:
            data: dict[str, str] | None = getattr(read(), "data", None)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
    return set(data or {})


def _core_api() -> Any:
    from kubernetes import client

    log_in()
    return client.CoreV1Api()

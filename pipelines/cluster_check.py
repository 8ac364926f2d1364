"""What a cluster lacks for a deployment profile's runs, all of it at once, each with its cure."""

import base64
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, NamedTuple, Protocol

from editloop.errors import EditLoopError
from infra.cluster_access import answering, log_in
from infra.doctor import Check
from infra.profile import Profile
from infra.trainjob import RESOURCE
from pipelines.catalogue import STAGES
from pipelines.kfp_server import KfpServer, step_titles
from pipelines.kfp_settings import KfpSettings
from pipelines.service_checks import OLDEST_KFP, check_services, version_check

RUN_ID_LABEL = "pipeline/runid"
NODE_ANNOTATION = "workflows.argoproj.io/node-name"
"""Annotation with a pod's place in the graph: PIPELINE-xxxxx(0).root(0).PIPELINE-steps(0).STEP(0).executor(0)."""
OF_THE_LAUNCHER = re.compile(r"^([IWEF]\d{4} |time=|Error: exit status|\[KFP Executor)")
"""Beginning of lines that KFP's and Argo's own programs write around a step's."""
KFP_ROOT_CONFIG = "kfp-launcher"
"""ConfigMap in which KFP's launcher finds the endpoint and the log-in of object storage."""
ADDRESSES = ("MLFLOW_TRACKING_URI", "EDITLOOP_LABEL_STUDIO_URL", "AWS_ENDPOINT_URL")
"""Variables whose values in this shell are used instead of the profile's."""
NEEDED_VARIABLES = ("MLFLOW_TRACKING_URI", "EDITLOOP_LABEL_STUDIO_URL", "EDITLOOP_DATASET_REPO")
"""Variables without which a turn of the loop does not come to its end."""
Data = Mapping[str, str]
"""What a Secret or ConfigMap holds, by key."""


class KubernetesObject(Protocol):
    """An object that may hold data: a Secret's values are base64."""

    @property
    def data(self) -> Mapping[str, str] | None: ...


class Listing(Protocol):
    """A list of objects as Kubernetes' client returns it."""

    @property
    def items(self) -> Sequence[Any]: ...


class CoreApi(Protocol):
    """The part of Kubernetes' CoreV1Api that the checks need."""

    def read_namespace(self, name: str) -> KubernetesObject: ...
    def read_namespaced_service_account(self, name: str, namespace: str) -> KubernetesObject: ...
    def read_namespaced_secret(self, name: str, namespace: str) -> KubernetesObject: ...
    def read_namespaced_config_map(self, name: str, namespace: str) -> KubernetesObject: ...
    def list_node(self) -> Listing: ...
    def list_namespaced_resource_quota(self, namespace: str) -> Listing: ...
    def list_namespaced_limit_range(self, namespace: str) -> Listing: ...
    def list_namespaced_pod(self, namespace: str, *, label_selector: str) -> Listing: ...
    def read_namespaced_pod_log(self, name: str, namespace: str, *, container: str) -> str: ...


class RuntimeApi(Protocol):
    """The part of Kubernetes' CustomObjectsApi that the checks need."""

    def get_cluster_custom_object(self, *, group: str, version: str, plural: str, name: str) -> object: ...
    def get_namespaced_custom_object(
        self, *, group: str, version: str, plural: str, namespace: str, name: str
    ) -> object: ...


def check_cluster(settings: KfpSettings, profile: Profile) -> list[Check]:
    """Check the Kubeflow Pipelines server, what the profile names in its namespace, and the services of its variables.

    Nothing that is missing hides another thing that is missing. Services are asked with the log-ins of the profile's
    Secrets, at the addresses in ADDRESSES of this shell where they are set, because a cluster's own may not be reached
    from here.

    Args:
        settings: Address of the server.
        profile: The deployment profile.
    """
    checks = _asked("Kubeflow Pipelines", lambda: [_server_check(settings, profile)])
    variables = dict(profile.variables)
    variables |= {"AWS_ENDPOINT_URL": profile.storage.endpoint, "AWS_DEFAULT_REGION": profile.storage.region}
    try:
        core, runtimes = _cluster_apis()
    except EditLoopError as error:
        checks.append(Check("Kubernetes", False, str(error), "kubectl must reach the cluster from this shell"))
    else:
        checks += _object_checks(core, profile, variables)
        checks += _asked("GPUs", lambda: _gpu_checks(core, profile))
        checks += _asked("quota", lambda: _quota_checks(core, profile))
        checks += _asked("training runtime", lambda: _runtime_checks(runtimes, profile))
    variables |= {name: os.environ[name] for name in ADDRESSES if os.environ.get(name)}
    for name in NEEDED_VARIABLES:
        if not variables.get(name):
            checks.append(Check(name, False, "not set", "name it in the profile's `variables` or `config_maps`"))
    return checks + check_services(variables, profile.storage.pipeline_root)


def _asked(name: str, ask: Callable[[], Iterable[Check]]) -> list[Check]:
    """Return checks, or one that says why nothing could be asked."""
    try:
        return list(ask())
    except EditLoopError as error:
        return [Check(name, False, str(error), "ask for the right to read it, or check it by hand")]


def _object_checks(core: CoreApi, profile: Profile, variables: dict[str, str]) -> list[Check]:
    """Check the namespace and what is in it. Values of Secrets and ConfigMaps are added to the variables."""
    checks: list[Check] = []
    namespace = profile.namespace

    def read(kind: str, name: str, call: Callable[[], KubernetesObject], keys: Iterable[str], advice: str = "") -> Data:
        label = f"{kind} {name}"
        try:
            data = _data(call)
        except EditLoopError as error:
            checks.append(Check(label, False, str(error), "ask for the right to read it, or check it by hand"))
            return {}
        if data is None:
            checks.append(Check(label, False, "missing", advice or f"kubectl -n {namespace} create {kind} {name}"))
            return {}
        missing = sorted(set(keys) - data.keys())
        state = f"lacks {', '.join(missing)}" if missing else "there"
        checks.append(Check(label, not missing, state, f"add the keys: kubectl -n {namespace} edit {kind} {name}"))
        return data

    read("namespace", namespace, lambda: core.read_namespace(namespace), (), f"kubectl create namespace {namespace}")
    account = profile.service_account
    read("serviceaccount", account, lambda: core.read_namespaced_service_account(account, namespace), ())
    secrets = {secret.secret: secret.variables for secret in profile.secrets}
    for name in [*(folder.secret for folder in profile.secret_folders), *profile.pull_secrets]:
        secrets.setdefault(name, {})
    for name, names in secrets.items():
        data = read("secret", name, partial(core.read_namespaced_secret, name, namespace), names.values())
        variables |= {variable: base64.b64decode(data[key]).decode() for variable, key in names.items() if key in data}
    for name, names in profile.config_maps.items():
        data = read("configmap", name, partial(core.read_namespaced_config_map, name, namespace), names.values())
        variables |= {variable: data[key] for variable, key in names.items() if key in data}
    if not profile.storage.pipeline_root.startswith("minio://"):
        advice = "it names endpoint, region and log-in of the storage to KFP: infra/k8s/base/storage.yaml"
        launcher = partial(core.read_namespaced_config_map, KFP_ROOT_CONFIG, namespace)
        read("configmap", KFP_ROOT_CONFIG, launcher, ["providers"], advice)
    return checks


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
    core, _ = _cluster_apis()
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
        server = KfpServer(settings, profile)
    except EditLoopError as error:
        return Check("Kubeflow Pipelines", False, str(error), advice)
    return version_check("Kubeflow Pipelines", server.version(), OLDEST_KFP)


def _gpu_checks(core: CoreApi, profile: Profile) -> Iterator[Check]:
    """Check that a node has the GPUs that a stage's pod asks for."""
    needs: dict[tuple[str, int], list[str]] = {}
    for stage in STAGES:
        resources = profile.resources(stage)
        if resources.gpus:
            needs.setdefault((resources.gpu_kind, resources.gpus), []).append(stage)
    if not needs:
        return
    with answering():
        nodes: list[Mapping[str, str]] = [node.status.allocatable or {} for node in core.list_node().items]
    for (kind, count), stages in needs.items():
        most = max((int(node.get(kind, 0)) for node in nodes), default=0)
        advice = f"add such a node, or lower `gpus` of {', '.join(stages)} in the profile"
        yield Check(f"{count} {kind} on a node", most >= count, f"the largest node has {most}", advice)


def _quota_checks(core: CoreApi, profile: Profile) -> Iterator[Check]:
    """Check that the namespace's quotas and limits leave room for the stage that asks for most of a resource."""
    pods = _largest_needs(profile, whole_job=False)
    jobs = _largest_needs(profile, whole_job=True)
    limits: list[tuple[str, Mapping[str, str], dict[str, Need]]] = []
    with answering():
        for quota in core.list_namespaced_resource_quota(profile.namespace).items:
            limits.append((f"quota {quota.metadata.name}", quota.spec.hard or {}, jobs))
        for limit_range in core.list_namespaced_limit_range(profile.namespace).items:
            for limit in limit_range.spec.limits:
                if limit.type in ("Container", "Pod"):
                    limits.append((f"limitrange {limit_range.metadata.name}", limit.max or {}, pods))
    for name, most, needs in limits:
        for key, amount in most.items():
            resource = key.removeprefix("requests.").removeprefix("limits.")
            if resource in needs:
                need = needs[resource]
                advice = f"raise it, or lower what stage {need.stage} asks in the profile"
                is_enough = parse_quantity(amount) >= need.amount
                yield Check(f"{name}: {key}", is_enough, f"{amount}; {need.wording}", advice)


class Need(NamedTuple):
    """The most of a resource that a stage asks for."""

    amount: Decimal
    wording: str
    """The amount as the profile has it, and the stage."""
    stage: str


def _largest_needs(profile: Profile, *, whole_job: bool) -> dict[str, Need]:
    """Return the largest need of each resource, of one pod or of all pods of a stage together."""
    needs: dict[str, Need] = {}
    for stage in STAGES:
        resources = profile.resources(stage)
        amounts = {"cpu": resources.cpu, "memory": resources.memory, resources.gpu_kind: str(resources.gpus)}
        for name, amount in amounts.items():
            pods = resources.nodes if whole_job else 1
            wording = f"{stage} asks {f'{pods} x ' if pods > 1 else ''}{amount}"
            need = Need(parse_quantity(amount) * pods, wording, stage)
            if need.amount:
                needs[name] = max(needs.get(name, need), need, key=lambda entry: entry.amount)
    return needs


def _runtime_checks(runtimes: RuntimeApi, profile: Profile) -> Iterator[Check]:
    """Check that Kubeflow Trainer has the runtime of stages that run as TrainJobs."""
    from kubernetes.client.exceptions import ApiException

    stages = [stage for stage in STAGES if profile.resources(stage).launcher == "trainjob"]
    if not stages:
        return
    runtime = profile.training_runtime
    kind = {"group": RESOURCE["group"], "version": RESOURCE["version"], "plural": f"{runtime.kind.lower()}s"}
    check = f"{runtime.kind} {runtime.name}"
    with answering():
        try:
            if runtime.kind == "TrainingRuntime":
                runtimes.get_namespaced_custom_object(**kind, namespace=profile.namespace, name=runtime.name)
            else:
                runtimes.get_cluster_custom_object(**kind, name=runtime.name)
        except ApiException as error:
            if error.status != 404:
                raise
            advice = "install infra/k8s/components/training-runtime, or name another in the profile's training_runtime"
            yield Check(check, False, f"missing, and {', '.join(stages)} need it", advice)
            return
    yield Check(check, True, "there")


def _data(read: Callable[[], KubernetesObject]) -> Data | None:
    """Return an object's data, which is empty for most kinds; None where the cluster has no such object."""
    from kubernetes.client.exceptions import ApiException

    with answering():
        try:
            return getattr(read(), "data", None) or {}
        except ApiException as error:
            if error.status == 404:
                return None
            raise


def _cluster_apis() -> tuple[CoreApi, RuntimeApi]:
    from kubernetes import client

    log_in()
    return client.CoreV1Api(), client.CustomObjectsApi()


def parse_quantity(amount: str) -> Decimal:
    """Return an amount in Kubernetes' notation as a number.

    Args:
        amount: The amount, such as 500m, 4 or 16Gi.
    """
    from kubernetes.utils.quantity import parse_quantity as parse

    return Decimal(parse(amount))

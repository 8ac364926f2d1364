"""MLflow: one parent run a pipeline run, one nested run a step of it.

Only `MlflowClient` with explicit run ids is used, so neither an active run nor an MLFLOW_RUN_ID of the surroundings
changes what is written. MLflow reads the server's address and our name from MLFLOW_TRACKING_URI, _USERNAME, _PASSWORD.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, file_digests, read_manifest, sha256_file, sha256_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.lineage.checkout_commit import checkout_commit
from editloop.lineage.retries import is_unreachable, retry_while_unreachable

EXPERIMENT = "editloop"
STAGE_RUN = "EDITLOOP_STAGE_RUN"
"""The variable of `TrackingSettings.stage_run`, which a step sets for the processes that it starts."""
LINEAGE_FACTS = ("campaign_key", "export_sha256", "answers_sha256", "config_sha256", "reward_sha256", "base_sha256")
"""Facts of a folder's manifest that become tags of the run that read or wrote it."""
MANIFESTS = "manifests"
"""Where a run keeps the manifests of what its step wrote, NAME/manifest.json: the digests of its other artifacts."""
PRODUCED_OUTPUTS = ("output", "editor")
"""Names of outputs that are models or data: what `run_that_made` looks for."""
EXTERNAL_INPUT = "edits"
"""Name of the inputs that no step of ours made: their manifests are kept too, or nobody could say what was in them."""
PAGE = 1000
"""Runs a request."""
TWIN_TRIES = 5
"""How often facts are sent that another process logs at the same time; each try that fails means that one arrived."""

_EXPERIMENTS: dict[str, str] = {}
"""Ids by the server's address: each question costs a server with passwords a fifth of a second."""


class TrackingSettings(EnvironmentSettings):
    """What a step records of itself, and where fetched models are kept."""

    cache: Path = Path.home() / ".cache" / "editloop"
    """Models fetched from the registry are kept here under the sha256 of their content."""
    git_commit: str | None = None
    """Commit of the running code where there is no git checkout around it (set in the container image)."""
    image: str | None = None
    """Container image that the step runs in."""
    stage_run: str | None = None
    """Id of the step's own MLflow run, for processes that the step starts."""


@dataclass
class StageRun:
    """The nested run of one step while it works. `finish` says what came out."""

    run_id: str
    pipeline_run: str
    began: float = field(default_factory=time.time)
    metrics: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, Path] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)

    def finish(
        self,
        metrics: dict[str, float],
        outputs: dict[str, Path],
        *,
        tags: dict[str, str] | None = None,
        files: list[Path] | None = None,
    ) -> None:
        """Keep the step's results; they are logged when its block ends. `files` become artifacts of the run."""
        self.metrics, self.outputs = metrics, outputs
        self.tags |= tags or {}
        self.files += files or []


def client() -> Any:
    """An MlflowClient of the server in MLFLOW_TRACKING_URI; EditLoopError where that is not set."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise EditLoopError("MLFLOW_TRACKING_URI is not set. `editloop up` starts a server and prints the variables.")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from mlflow.tracking import MlflowClient

    return MlflowClient()


@contextmanager
def stage_run(
    stage: str, pipeline: str, pipeline_run: str, inputs: dict[str, Path], parameters: dict[str, Any]
) -> Iterator[StageRun]:
    """The nested MLflow run of one step of a pipeline run, found again when the same step is tried again.

    `inputs` are complete folders (their manifests' sha256 are logged) or files. The run fails with the block. Before
    and after the block an MLflow that is away is waited for (`editloop.lineage.retries`); within it nobody asks for
    MLflow here.
    """
    digests = {name: digest(path) for name, path in inputs.items()}
    api = client()
    step = sha256_json([pipeline_run, stage, digests, parameters])[:16]
    run_id, parent = retry_while_unreachable(_begin, api, stage, pipeline, pipeline_run, step)
    run = StageRun(run_id, pipeline_run)
    os.environ[STAGE_RUN] = run_id
    try:
        retry_while_unreachable(_log_before, api, run, digests, inputs, parameters)
        yield run
        retry_while_unreachable(_log_after, api, run, time.time())
    except BaseException as error:
        _fail(api, (run_id, parent), error)
        raise
    finally:
        os.environ.pop(STAGE_RUN, None)
    retry_while_unreachable(_end, api, (run_id, parent), "FINISHED")


def digest(path: Path) -> str:
    """The content address of a stage's input or output: a folder's as a manifest has it, or a file's."""
    if path.is_dir():
        return str(read_manifest(path)["sha256"]) if (path / MANIFEST).is_file() else sha256_json(file_digests(path))
    return sha256_file(path)


def lineage_facts(path: Path) -> dict[str, str]:
    """Those facts of a folder's manifest that say where its content came from."""
    if not (path / MANIFEST).is_file():
        return {}
    facts = read_manifest(path)["facts"]
    return {key: str(facts[key]) for key in LINEAGE_FACTS if facts.get(key) is not None}


def find_runs(
    tags: Mapping[str, str] | None = None,
    /,
    *,
    finished: bool = False,
    deleted: bool = False,
    limit: int | None = None,
    **named_tags: str,
) -> list[Any]:
    """The runs of the experiment that carry the tags (given without the prefix "editloop."), the newest first.

    Tags whose names are no words of Python come as a mapping, the others by name.

    All of them, or the `limit` newest; with `finished` only those that reached their end; with `deleted` only those
    that somebody deleted, which are no part of the record any more. The server does the choosing.
    """
    from mlflow.entities import ViewType

    api = client()
    terms = [f"tags.`editloop.{key}` = {quoted(value)}" for key, value in {**(tags or {}), **named_tags}.items()]
    query = " and ".join([*terms, *(["attributes.status = 'FINISHED'"] if finished else [])])
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    runs: list[Any] = []
    token: str | None = None
    while True:
        page_size = PAGE if limit is None else min(PAGE, limit - len(runs))
        page = api.search_runs([_experiment(api)], query, view, page_size, ["attributes.start_time DESC"], token)
        runs += page
        token = page.token
        if not token or not page or (limit is not None and len(runs) >= limit):
            return runs


def log_batch(api: Any, run_id: str, **batch: Any) -> None:
    """Log `metrics`, `params` and `tags` to a run that another process may be logging the same to.

    MLflow looks which rows a run has and then writes the others; of two who looked at once the second breaks the
    database's rule of unique rows and is told that its request is bad. Sent again, it finds the first one's rows.
    """
    from mlflow.exceptions import MlflowException
    from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_random

    def twin(error: BaseException) -> bool:
        return isinstance(error, MlflowException) and error.error_code == "BAD_REQUEST"

    trying = Retrying(
        retry=retry_if_exception(twin), stop=stop_after_attempt(TWIN_TRIES), wait=wait_random(0, 0.5), reraise=True
    )
    trying(api.log_batch, run_id, **batch)


def quoted(value: str) -> str:
    """A text as MLflow's search language writes it. EditLoopError for one with both kinds of quotes."""
    if "'" not in value:
        return f"'{value}'"
    if '"' in value:
        raise EditLoopError(f"{value}: MLflow cannot look for a text with both kinds of quotes; use another name.")
    return f'"{value}"'


def find_producer_run(stage: str, sha256: str) -> str:
    """The id of the latest run of a stage with a model or data of this sha256; EditLoopError without one."""
    for name in PRODUCED_OUTPUTS:
        if runs := find_runs({f"output.{name}": sha256}, stage=stage, limit=1):
            return str(runs[0].info.run_id)
    raise EditLoopError(f"No run of stage {stage} in MLflow made {sha256}; run the stage with MLflow reachable.")


def origin_tags(run_id: str) -> dict[str, str]:
    """What a registered version should say of its training beside its dataset or teacher: the sha256 of the model that
    it began as, and of the edits that it practised on, where there are such."""
    tags = client().get_run(run_id).data.tags
    sources = {"editloop.base_sha256": "editloop.base_sha256", "editloop.edits_sha256": "editloop.input.edits"}
    return {name: tags[key] for name, key in sources.items() if key in tags}


def _experiment(api: Any) -> str:
    """The id of our experiment on the server that MLFLOW_TRACKING_URI names; asked for once."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if uri not in _EXPERIMENTS:
        _EXPERIMENTS[uri] = _find_experiment(api)
    return _EXPERIMENTS[uri]


def _find_experiment(api: Any) -> str:
    from mlflow.exceptions import MlflowException

    experiment = api.get_experiment_by_name(EXPERIMENT)
    if experiment:
        return str(experiment.experiment_id)
    try:
        return str(api.create_experiment(EXPERIMENT))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return str(api.get_experiment_by_name(EXPERIMENT).experiment_id)


def _begin(api: Any, stage: str, pipeline: str, pipeline_run: str, step: str) -> tuple[str, str]:
    """The ids of the step's run and of its parent, both running."""
    experiment = _experiment(api)
    parent = _run(api, experiment, pipeline_run, {"editloop.pipeline": pipeline, "editloop.pipeline_run": pipeline_run})
    tags = {"mlflow.parentRunId": parent, "editloop.stage": stage, "editloop.step": step}
    run_id = _run(api, experiment, stage, tags)
    for started_id in (parent, run_id):
        api.update_run(started_id, status="RUNNING")
    return run_id, parent


def _end(api: Any, run_ids: Sequence[str], status: str) -> None:
    for run_id in run_ids:
        api.set_terminated(run_id, status)


def _fail(api: Any, run_ids: Sequence[str], error: BaseException) -> None:
    """Mark the runs as failed. MLflow is waited for unless somebody wants the process to end, or waited enough."""
    try:
        if isinstance(error, Exception) and not is_unreachable(error):
            retry_while_unreachable(_end, api, run_ids, "FAILED")
        else:
            _end(api, run_ids, "FAILED")
    except Exception as failure:
        if not is_unreachable(failure):
            raise
        print("MLflow does not answer; it keeps this step as running until it is tried again", flush=True)


def _run(api: Any, experiment: str, name: str, tags: dict[str, str]) -> str:
    """The id of the run that carries exactly these tags, made when missing; of two made at once the first stays."""
    query = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in tags.items())

    def oldest() -> list[Any]:
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        return list(api.search_runs([experiment], query, max_results=1, order_by=order))

    if runs := oldest():
        return str(runs[0].info.run_id)
    created = str(api.create_run(experiment, run_name=name, tags=tags).info.run_id)
    first = str(oldest()[0].info.run_id)
    if first != created:
        api.delete_run(created)
    return first


def _log_before(
    api: Any, run: StageRun, digests: dict[str, str], inputs: dict[str, Path], parameters: dict[str, Any]
) -> None:
    from mlflow.entities import Param, RunTag

    tags = {f"editloop.input.{name}": value for name, value in digests.items()}
    tags["editloop.pipeline_run"] = run.pipeline_run
    for path in inputs.values():
        tags |= {f"editloop.{key}": value for key, value in lineage_facts(path).items()}
    if commit := TrackingSettings().git_commit or checkout_commit():
        tags["mlflow.source.git.commit"] = commit
    if image := TrackingSettings().image:
        tags["editloop.image"] = image
    if EXTERNAL_INPUT in inputs and (inputs[EXTERNAL_INPUT] / MANIFEST).is_file():
        api.log_artifact(run.run_id, str(inputs[EXTERNAL_INPUT] / MANIFEST), f"{MANIFESTS}/{EXTERNAL_INPUT}")
    params = [Param(name, str(value)[:6000]) for name, value in parameters.items()]
    log_batch(api, run.run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])


def _log_after(api: Any, run: StageRun, now: float) -> None:
    from mlflow.entities import Metric, RunTag

    numbers = run.metrics | {"seconds": now - run.began}
    metrics = [Metric(name, float(value), int(now * 1000), 0) for name, value in numbers.items()]
    tags = {f"editloop.output.{name}": digest(path) for name, path in run.outputs.items()}
    for path in run.outputs.values():
        tags |= {f"editloop.{key}": value for key, value in lineage_facts(path).items()}
    tags |= {f"editloop.{key}": value for key, value in run.tags.items()}
    for path in run.files:
        api.log_artifact(run.run_id, str(path))
    for name, path in run.outputs.items():
        if (path / MANIFEST).is_file():
            api.log_artifact(run.run_id, str(path / MANIFEST), f"{MANIFESTS}/{name}")
    log_batch(api, run.run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])

"""Records of pipeline runs in MLflow: one parent run per pipeline run, with one nested run per step.

All calls use `MlflowClient` with explicit run ids, so neither an active run nor an MLFLOW_RUN_ID in the environment
changes what is written. MLflow reads the server's address and the account from MLFLOW_TRACKING_URI,
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenacity import wait_random

from editloop.content import MANIFEST, file_digests, read_manifest, sha256_file, sha256_json
from editloop.environment import EnvironmentSettings
from editloop.errors import EditLoopError
from editloop.lineage.checkout_commit import checkout_commit
from editloop.lineage.mlflow_errors import deleted_experiment, server_name
from editloop.lineage.retries import is_unreachable, retry_while_unreachable
from editloop.retry import retry_call

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

EXPERIMENT = "editloop"
STAGE_RUN = "EDITLOOP_STAGE_RUN"
"""The variable of `TrackingSettings.stage_run`, which a step sets for the processes that it starts."""
LINEAGE_FACTS = ("campaign_key", "export_sha256", "answers_sha256", "config_sha256", "reward_sha256", "base_sha256")
"""Facts of a folder's manifest that become tags of the run that read or wrote it."""
MANIFESTS = "manifests"
"""Artifact folder with the manifests of a step's outputs, NAME/manifest.json: the digests of the run's other
artifacts."""
PRODUCED_OUTPUTS = ("output", "editor")
"""Names of outputs that are models or data, among which `find_producer_run` searches."""
EXTERNAL_INPUT = "edits"
"""Name of the inputs that no step made. Their manifests are kept too, since no other run records their content."""
PAGE = 1000
"""Runs per request."""
TWIN_TRIES = 5
"""Most tries to log what another process logs at the same time. Each failed try means that another's write arrived."""

_EXPERIMENTS: dict[tuple[str, str], str] = {}
"""Ids by the server's address and the experiment's name, because each query to a server with passwords takes a fifth of
a second."""


class TrackingSettings(EnvironmentSettings):
    """What a step records about itself, and where fetched models are kept."""

    cache: Path = Path.home() / ".cache" / "editloop"
    """Cache folder: models fetched from the registry, each under the sha256 of its content, and file lists of edits
    folders."""
    git_commit: str | None = None
    """Commit of the running code where there is no git checkout around it (set in the container image)."""
    image: str | None = None
    """Container image that the step runs in."""
    stage_run: str | None = None
    """Id of the step's own MLflow run, for processes that the step starts."""


@dataclass
class StageRun:
    """The nested run of one step while the step runs."""

    run_id: str
    pipeline_run: str
    began: float = field(default_factory=time.time)
    """Start time, in seconds since 1970."""
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
        """Set the step's results. They are logged when the `stage_run` block ends.

        Args:
            metrics: Figures by name.
            outputs: Files and folders that the step wrote, by name. Their sha256 are logged.
            tags: Further tags, without the prefix "editloop."; None for none.
            files: Files to keep as artifacts of the run; None for none.
        """
        self.metrics, self.outputs = metrics, outputs
        self.tags |= tags or {}
        self.files += files or []


def client() -> "MlflowClient":
    """Return an MlflowClient for the server in MLFLOW_TRACKING_URI, to which secrets of addresses are not written.

    Raises:
        EditLoopError: MLFLOW_TRACKING_URI is not set.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise EditLoopError("MLFLOW_TRACKING_URI is not set. `editloop up` starts a server and prints the variables.")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    from editloop.lineage.mlflow_client import SecretFreeClient

    return SecretFreeClient()


@contextmanager
def stage_run(
    stage: str, pipeline: str, pipeline_run: str, inputs: dict[str, Path], parameters: dict[str, Any]
) -> Iterator[StageRun]:
    """Record one step of a pipeline run in MLflow within the block.

    A retried step, with the same inputs and parameters, reuses its run. The run fails where the block raises. Before
    and after the block, calls wait for an MLflow that is unreachable (`editloop.lineage.retries`). Within the block
    this function makes no calls.

    Args:
        stage: Name of the stage.
        pipeline: Name of the pipeline.
        pipeline_run: Name of the pipeline run.
        inputs: Folders or files that the step reads, by name. Their sha256 are logged.
        parameters: The step's parameters, logged as text.

    Yields:
        The run; call its `finish` with the results.
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


def experiment_of(run_id: str) -> str:
    """Return the id of a run's experiment.

    Args:
        run_id: The run.
    """
    return str(client().get_run(run_id).info.experiment_id)


def digest(path: Path) -> str:
    """Return the sha256 of a stage's input or output: the manifest's for a folder, or that of a file's bytes.

    A folder without a manifest gets the sha256 that a manifest would have.

    Args:
        path: The file or folder.
    """
    if path.is_dir():
        return str(read_manifest(path)["sha256"]) if (path / MANIFEST).is_file() else sha256_json(file_digests(path))
    return sha256_file(path)


def find_runs(
    tags: Mapping[str, str] | None = None,
    /,
    *,
    finished: bool = False,
    deleted: bool = False,
    limit: int | None = None,
    **named_tags: str,
) -> "list[Run]":
    """Return the runs of EXPERIMENT that carry all given tags, newest first. The server selects them.

    Args:
        tags: Tags without the prefix "editloop."; for names that are not valid Python identifiers. None for none.
        finished: Return finished runs only.
        deleted: Return deleted runs only; otherwise these are left out.
        limit: Most runs to return; None for all.
        **named_tags: Further tags, likewise.
    """
    from mlflow.entities import ViewType

    api = client()
    terms = [f"tags.`editloop.{key}` = {quoted(value)}" for key, value in {**(tags or {}), **named_tags}.items()]
    query = " and ".join([*terms, *(["attributes.status = 'FINISHED'"] if finished else [])])
    view = ViewType.DELETED_ONLY if deleted else ViewType.ACTIVE_ONLY
    experiments, order = [require_experiment(api, EXPERIMENT)], ["attributes.start_time DESC"]
    return all_pages(api.search_runs, experiments, query, view, order_by=order, limit=limit)


def all_pages(search: Callable[..., Any], *arguments: Any, limit: int | None = None, **options: Any) -> list[Any]:
    """Return everything that a search of the MlflowClient finds.

    Args:
        search: The search, which takes `max_results` and `page_token`.
        *arguments: Its other arguments.
        limit: Most results; None for all.
        **options: Its other keywords.
    """
    from mlflow.utils import get_results_from_paginated_fn

    def read_page(size: int, token: str | None) -> Any:
        return search(*arguments, max_results=size, page_token=token, **options)

    return list(get_results_from_paginated_fn(read_page, PAGE, limit))


def log_batch(api: "MlflowClient", run_id: str, **batch: Any) -> None:
    """Log metrics, parameters and tags to a run to which another process may be logging the same ones.

    MLflow checks which rows a run has, then inserts the missing ones. Where two processes do so at once, the second
    violates a unique constraint of the database and gets the error BAD_REQUEST. On a retry MLflow sees the rows of the
    first.

    Args:
        api: The MlflowClient.
        run_id: The run.
        **batch: `metrics`, `params` and `tags`, as for `MlflowClient.log_batch`.
    """
    from mlflow.exceptions import MlflowException

    def twin(error: BaseException) -> bool:
        return isinstance(error, MlflowException) and error.error_code == "BAD_REQUEST"

    retry_call(partial(api.log_batch, run_id, **batch), twin, tries=TWIN_TRIES, wait=wait_random(0, 0.5))


def quoted(value: str) -> str:
    """Return text as a quoted string of MLflow's search syntax.

    Args:
        value: The text.

    Raises:
        EditLoopError: It contains both kinds of quotes.
    """
    if "'" not in value:
        return f"'{value}'"
    if '"' in value:
        raise EditLoopError(f"{value}: MLflow cannot look for a text with both kinds of quotes; use another name.")
    return f'"{value}"'


def find_producer_run(stage: str, sha256: str) -> str:
    """Return the id of the latest run of a stage that made a model or dataset.

    Args:
        stage: Name of the stage.
        sha256: Content of the model or dataset.

    Raises:
        EditLoopError: There is no such run.
    """
    for name in PRODUCED_OUTPUTS:
        if runs := find_runs({f"output.{name}": sha256}, stage=stage, limit=1):
            return str(runs[0].info.run_id)
        for run in find_runs({f"output.{name}": sha256}, stage=stage, deleted=True, limit=1):
            raise EditLoopError(
                f"{server_name()}: run {run.info.run_id} of stage {stage}, which made {sha256}, was deleted. Restore "
                f"it: `mlflow runs restore --run-id {run.info.run_id}`."
            )
    raise EditLoopError(f"No run of stage {stage} in MLflow made {sha256}; run the stage with MLflow reachable.")


def origin_tags(run_id: str) -> dict[str, str]:
    """Return the tags that tell a registered version's origins, besides its dataset or reward model.

    These are the sha256 of the model that training began with and of the edits trained on, where the run has them.

    Args:
        run_id: The training run.
    """
    tags = client().get_run(run_id).data.tags
    sources = {"editloop.base_sha256": "editloop.base_sha256", "editloop.edits_sha256": "editloop.input.edits"}
    return {name: tags[key] for name, key in sources.items() if key in tags}


def find_experiment(api: "MlflowClient", name: str) -> str | None:
    """Return the id of an experiment; None where it does not exist yet. An id is remembered.

    Args:
        api: The MlflowClient.
        name: Name of the experiment.

    Raises:
        EditLoopError: It was deleted, and can be restored.
    """
    key = os.environ["MLFLOW_TRACKING_URI"], name
    if key not in _EXPERIMENTS:
        experiment = api.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage == "deleted":
            raise deleted_experiment(name, str(experiment.experiment_id))
        _EXPERIMENTS[key] = str(experiment.experiment_id)
    return _EXPERIMENTS[key]


def forget_experiments() -> None:
    """Ask the server for experiments' ids anew, as a program does that runs for days: they may be deleted meanwhile."""
    _EXPERIMENTS.clear()


def require_experiment(api: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, which is created where it is missing.

    Args:
        api: The MlflowClient.
        name: Name of the experiment.

    Raises:
        EditLoopError: It was deleted, and can be restored.
    """
    from mlflow.exceptions import MlflowException

    if experiment := find_experiment(api, name):
        return experiment
    try:
        return str(api.create_experiment(name))
    except MlflowException:
        if experiment := find_experiment(api, name):  # another process created it at this moment
            return experiment
        raise


def pipeline_parent(api: "MlflowClient", pipeline: str, pipeline_run: str) -> str:
    """Return the id of the run that is the parent of a pipeline run's steps. It is created where it is missing.

    Args:
        api: The MlflowClient.
        pipeline: Name of the pipeline.
        pipeline_run: Name of the pipeline run.
    """
    tags = {"editloop.pipeline": pipeline, "editloop.pipeline_run": pipeline_run}
    return _run(api, require_experiment(api, EXPERIMENT), pipeline_run, tags)


def _begin(api: "MlflowClient", stage: str, pipeline: str, pipeline_run: str, step: str) -> tuple[str, str]:
    """The ids of the step's run and of its parent, both set to running."""
    experiment, parent = require_experiment(api, EXPERIMENT), pipeline_parent(api, pipeline, pipeline_run)
    tags = {"mlflow.parentRunId": parent, "editloop.stage": stage, "editloop.step": step}
    run_id = _run(api, experiment, stage, tags)
    for started_id in (parent, run_id):
        api.update_run(started_id, status="RUNNING")
    return run_id, parent


def _end(api: "MlflowClient", run_ids: Sequence[str], status: str) -> None:
    for run_id in run_ids:
        api.set_terminated(run_id, status)


def _fail(api: "MlflowClient", run_ids: Sequence[str], error: BaseException) -> None:
    """Mark the runs as failed.

    Wait for an unreachable MLflow, but not on an interrupt, nor where `error` shows that the wait is over already.
    """
    try:
        if isinstance(error, Exception) and not is_unreachable(error):
            retry_while_unreachable(_end, api, run_ids, "FAILED")
        else:
            _end(api, run_ids, "FAILED")
    except Exception as failure:
        if not is_unreachable(failure):
            raise
        log.warning("MLflow does not answer; it keeps this step as running until it is tried again")


def _run(api: "MlflowClient", experiment: str, name: str, tags: dict[str, str]) -> str:
    """The id of the run with these tags, created where missing. Of two created at once the first is kept."""
    query = " and ".join(f"tags.`{key}` = {quoted(value)}" for key, value in tags.items())

    def oldest() -> "list[Run]":
        order = ["attributes.start_time ASC", "attributes.run_id ASC"]
        return list(api.search_runs([experiment], query, max_results=1, order_by=order))

    if runs := oldest():
        return str(runs[0].info.run_id)
    created = str(api.create_run(experiment, run_name=name, tags=tags).info.run_id)
    first = str(oldest()[0].info.run_id)
    if first != created:
        api.delete_run(created)
    return first


def _lineage_tags(paths: Iterable[Path]) -> dict[str, str]:
    """The LINEAGE_FACTS in the folders' manifests, as tags of a run."""
    manifests = [read_manifest(path)["facts"] for path in paths if (path / MANIFEST).is_file()]
    return {
        f"editloop.{key}": str(facts[key]) for facts in manifests for key in LINEAGE_FACTS if facts.get(key) is not None
    }


def _log_before(
    api: "MlflowClient", run: StageRun, digests: dict[str, str], inputs: dict[str, Path], parameters: dict[str, Any]
) -> None:
    from mlflow.entities import Param, RunTag

    tags = {f"editloop.input.{name}": value for name, value in digests.items()}
    tags |= {"editloop.pipeline_run": run.pipeline_run} | _lineage_tags(inputs.values())
    if commit := TrackingSettings().git_commit or checkout_commit():
        tags["mlflow.source.git.commit"] = commit
    if image := TrackingSettings().image:
        tags["editloop.image"] = image
    if EXTERNAL_INPUT in inputs and (inputs[EXTERNAL_INPUT] / MANIFEST).is_file():
        api.log_artifact(run.run_id, str(inputs[EXTERNAL_INPUT] / MANIFEST), f"{MANIFESTS}/{EXTERNAL_INPUT}")
    params = [Param(name, str(value)[:6000]) for name, value in parameters.items()]
    log_batch(api, run.run_id, params=params, tags=[RunTag(key, value) for key, value in tags.items()])


def _log_after(api: "MlflowClient", run: StageRun, now: float) -> None:
    from mlflow.entities import Metric, RunTag

    numbers = run.metrics | {"seconds": now - run.began}
    metrics = [Metric(name, float(value), int(now * 1000), 0) for name, value in numbers.items()]
    tags = {f"editloop.output.{name}": digest(path) for name, path in run.outputs.items()}
    tags |= _lineage_tags(run.outputs.values())
    tags |= {f"editloop.{key}": value for key, value in run.tags.items()}
    for path in run.files:
        api.log_artifact(run.run_id, str(path))
    for name, path in run.outputs.items():
        if (path / MANIFEST).is_file():
            api.log_artifact(run.run_id, str(path / MANIFEST), f"{MANIFESTS}/{name}")
    log_batch(api, run.run_id, metrics=metrics, tags=[RunTag(key, value) for key, value in tags.items()])

"""The key of a pipeline run, by the id of the run: the first step records it, later steps look it up.

A key among a step's parameters would be a part of what Kubeflow's cache compares, so that the same work under another
key would never come from the cache.
"""

from editloop.lineage import tracking
from editloop.lineage.retries import retry_while_unreachable

RUN_ID_TAG = "run_id."
"""Tag of the MLflow run of a key, after "editloop.", with the id of a pipeline run after it."""


def record_run_key(pipeline: str, key: str, run_id: str) -> None:
    """Record that a pipeline run has a key.

    Args:
        pipeline: The pipeline.
        key: The key, which names the run in MLflow.
        run_id: Kubeflow's id of the run.
    """

    def record() -> None:
        api = tracking.client()
        parent = tracking.pipeline_parent(api, pipeline, key)
        api.set_tag(parent, f"editloop.{RUN_ID_TAG}{run_id}", "recorded")
        api.set_terminated(parent)  # each of its steps sets it to running again; one from the cache does not

    retry_while_unreachable(record)


def find_run_key(run_id: str) -> str:
    """Return the key of a pipeline run; the run's id where it has none.

    Args:
        run_id: The id that the step's environment names.
    """
    runs = retry_while_unreachable(tracking.find_runs, {f"{RUN_ID_TAG}{run_id}": "recorded"}, limit=1)
    return str(runs[0].data.tags["editloop.pipeline_run"]) if runs else run_id

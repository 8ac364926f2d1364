"""The right to start a pipeline run: MLflow's server lets one caller have it for each piece of work and each try.

Two callers that submit the same piece of work at once would start it twice, because Kubeflow Pipelines allows any
number of runs of one name. The server of MLflow creates only one experiment of each name, and counts deleted ones too.
To start try n of a piece of work, a caller creates the experiment `editloop-runs/KEY/n`, submits the run, writes its id
into the experiment's tags and deletes the experiment, so that it is out of sight and its name stays taken.
"""

import time
import uuid
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from editloop.lineage.registry import tolerate_error

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CLAIMS = "editloop-runs"
SUBMISSION_SECONDS = 120.0
"""Seconds after which a claim without a run counts as abandoned. A submission takes one or two."""
RUN_TAG, TOKEN_TAG, ACTOR_TAG = "run", "token", "actor"


@dataclass(frozen=True)
class RunClaim:
    """A try of a piece of work."""

    key: str
    attempt: int
    """1 for the first try."""
    experiment_id: str
    run_id: str
    """Id of the run on its server; empty while it is being submitted, and where its caller died before that."""
    actor: str
    age_seconds: float

    @property
    def is_abandoned(self) -> bool:
        """Whether its caller died before it had submitted the run."""
        return not self.run_id and self.age_seconds > SUBMISSION_SECONDS


def latest_claim(api: "MlflowClient", key: str) -> RunClaim | None:
    """Return the newest try of a piece of work; None where there was none.

    Args:
        api: The MlflowClient.
        key: The piece of work.
    """
    latest: RunClaim | None = None
    for attempt in count(1):
        experiment = api.get_experiment_by_name(_name(key, attempt))
        if experiment is None:
            return latest
        age = time.time() - experiment.creation_time / 1000 if experiment.creation_time else 0.0
        tags = experiment.tags
        latest = RunClaim(
            key, attempt, experiment.experiment_id, tags.get(RUN_TAG, ""), tags.get(ACTOR_TAG, ""), max(age, 0.0)
        )
    raise AssertionError("count() does not end")


def claim_run(api: "MlflowClient", key: str, attempt: int, actor: str) -> RunClaim | None:
    """Take a try of a piece of work; None where another caller has it.

    Args:
        api: The MlflowClient.
        key: The piece of work.
        attempt: Number of the try, one above that of the newest.
        actor: Who takes it, for messages.
    """
    token = uuid.uuid4().hex
    name = _name(key, attempt)
    with tolerate_error("RESOURCE_ALREADY_EXISTS"):
        experiment_id = api.create_experiment(name, tags={TOKEN_TAG: token, ACTOR_TAG: actor})
        return RunClaim(key, attempt, str(experiment_id), "", actor, 0.0)
    experiment = api.get_experiment_by_name(name)
    if experiment is None or experiment.tags.get(TOKEN_TAG) != token:  # a request may reach the server twice
        return None
    return RunClaim(key, attempt, str(experiment.experiment_id), "", actor, 0.0)


def record_run(api: "MlflowClient", claim: RunClaim, run_id: str) -> None:
    """Write down the run that was submitted for a claim.

    Args:
        api: The MlflowClient.
        claim: The claim.
        run_id: Id of the run on its server.
    """
    api.set_experiment_tag(claim.experiment_id, RUN_TAG, run_id)
    api.delete_experiment(claim.experiment_id)


def _name(key: str, attempt: int) -> str:
    return f"{CLAIMS}/{key}/{attempt}"

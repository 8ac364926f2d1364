"""The right to start a pipeline run: MLflow's server lets one caller have it for each piece of work and each try.

Two callers that submit the same piece of work at once would start it twice, because Kubeflow Pipelines allows any
number of runs of one name. The server of MLflow creates only one experiment of each name, and counts deleted ones too.
To start try n of a piece of work, a caller creates the experiment `editloop-runs/KEY/n`, submits the run, writes its id
into the experiment's tags and deletes the experiment, so that it is out of sight and its name stays taken. A caller
that does the work itself shows every BEAT_SECONDS that it lives.
"""

import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from editloop.background import running_beside
from editloop.interruption import defer_signals
from editloop.lineage.mlflow_errors import translate_error
from editloop.lineage.registry import tolerate_error
from editloop.processes import has_ended, process_identity

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CLAIMS = "editloop-runs"
SUBMISSION_SECONDS = 120.0
"""Seconds after which a claim without a run counts as abandoned. A submission takes one or two."""
CLOCK_SECONDS = 3600.0
"""Seconds by which clocks of two machines may differ. A sign of life that is further in the future counts for nothing:
the clock was wrong then, and nobody should wait until that time."""
BEAT_SECONDS = 15.0
"""Seconds between two signs of life of a caller that does the work itself; it misses several before it counts as dead.
"""
RUN_TAG, TOKEN_TAG, ACTOR_TAG, BEAT_TAG, PROCESS_TAG, ENDED_TAG = "run", "token", "actor", "beat", "process", "ended"

log = logging.getLogger(__name__)


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
    """Since its beginning, or its caller's last sign of life."""
    has_ended: bool = False
    """Whether its caller did the work itself, and ended, well or not."""

    @property
    def is_abandoned(self) -> bool:
        """Whether its caller ended before it had submitted the run, or before it had done the work."""
        return not self.run_id and (self.has_ended or self.age_seconds > SUBMISSION_SECONDS)


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
        tags = experiment.tags
        signs = ((experiment.creation_time or 0) / 1000, float(tags.get(BEAT_TAG, 0.0)))
        last_sign = max(sign if sign < time.time() + CLOCK_SECONDS else 0.0 for sign in signs)
        latest = RunClaim(
            key,
            attempt,
            experiment.experiment_id,
            tags.get(RUN_TAG, ""),
            tags.get(ACTOR_TAG, ""),
            max(time.time() - last_sign, 0.0),
            ENDED_TAG in tags or has_ended(tags.get(PROCESS_TAG, "")),
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
        if attempt > 1:
            _clear(api, _name(key, attempt - 1))
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


@contextmanager
def kept_alive(api: "MlflowClient", claim: RunClaim) -> Iterator[None]:
    """Show that a claim's caller lives while it does the work in the block, and that it ended after it.

    Args:
        api: The MlflowClient.
        claim: The claim.
    """

    def beat(ended: threading.Event) -> None:
        while not ended.wait(BEAT_SECONDS):
            try:
                api.set_experiment_tag(claim.experiment_id, BEAT_TAG, str(time.time()))
            except Exception as error:  # an MLflow that is away is away for other callers too
                log.debug("no sign of life of %s: %s", claim.key, translate_error(error) or error)

    api.set_experiment_tag(claim.experiment_id, PROCESS_TAG, process_identity())
    try:
        with running_beside(beat, "signs of life"):
            yield
    finally:
        with defer_signals():
            try:
                api.set_experiment_tag(claim.experiment_id, ENDED_TAG, "yes")
                api.delete_experiment(claim.experiment_id)
            except Exception as error:  # what happened to the work matters more; without signs of life it ends as well
                log.warning("MLflow does not know that %s ended: %s", claim.key, translate_error(error) or error)


def _clear(api: "MlflowClient", name: str) -> None:
    """Take the claim of a caller that died out of sight; its name stays taken."""
    left = api.get_experiment_by_name(name)
    if left is not None and left.lifecycle_stage == "active":
        api.delete_experiment(left.experiment_id)


def _name(key: str, attempt: int) -> str:
    return f"{CLAIMS}/{key}/{attempt}"

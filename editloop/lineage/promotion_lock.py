"""A lock for moving an alias: MLflow's server lets one caller at a time write a model's next record.

The server creates only one experiment of each name, and counts deleted ones too. To write record n, a caller creates
the experiment `editloop-registry/NAME/n`, whose tags describe the move. The experiment is deleted once the record is
written or the move is given up. An experiment that stays without a record belongs to a caller that died. Where that was
a process of the same machine, at once, else after LOCK_EXPIRY_SECONDS, the next caller creates `.../n.2` and completes
what the first left unfinished.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from itertools import count
from typing import TYPE_CHECKING

from editloop.errors import EditLoopError
from editloop.lineage.registry import RECORDS, Promotion, PromotionRequest, promotions, tolerate_error
from editloop.processes import has_ended, process_identity

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

LOCK_EXPIRY_SECONDS = 60.0
"""Seconds after which a lock without a record counts as abandoned. A move takes one or two."""
CLOCK_SECONDS = 3600.0
"""Seconds by which clocks of two machines may differ. A lock that is further in the future counts as abandoned: the
clock was wrong when it was taken, and nobody should wait until then."""


class OvertakenError(EditLoopError):
    """Another caller moved the alias, or is moving it."""


@dataclass(frozen=True)
class PromotionLock:
    """The right to write one record of a model."""

    model: str
    number: int
    """Number of the record."""
    attempt: int
    """1, or more where earlier locks of this number were abandoned or released."""
    left: PromotionRequest | None
    """What a caller that died meant to write with this number; None for none."""


@contextmanager
def promotion_lock(api: "MlflowClient", request: PromotionRequest, number: int) -> Iterator[PromotionLock]:
    """Hold the lock of a model's record `number` within the block.

    Args:
        api: The MlflowClient.
        request: The intended move. Other callers see it while the lock is held.
        number: Number of the record to write.

    Yields:
        The lock.

    Raises:
        OvertakenError: The record exists already, or another caller holds the lock.
        EditLoopError: The lock's experiment exists, but this account may not see it.
    """
    token = uuid.uuid4().hex
    tags = {"token": token, "process": process_identity()} | _request_tags(request)
    abandoned: PromotionRequest | None = None
    expired = []
    for attempt in count(1):
        name = _lock_name(request.model, number, attempt)
        experiment = _create_experiment(api, name, tags)
        if experiment is not None:
            break
        rival = api.get_experiment_by_name(name)
        if rival is None:
            raise EditLoopError(f"{name}: MLflow has such an experiment and does not show it; ask for access to it.")
        _refuse_recorded(request.model, number)
        if rival.lifecycle_stage == "deleted":
            continue
        age = time.time() - rival.creation_time / 1000 if rival.creation_time else 0.0  # unknown counts as held
        if -CLOCK_SECONDS < age < LOCK_EXPIRY_SECONDS and not has_ended(rival.tags.get("process", "")):
            raise OvertakenError(
                f"{rival.tags.get('actor')} began to move {request.model}@{rival.tags.get('alias')} to version "
                f"{rival.tags.get('version')} {max(age, 0):.0f} s ago. Look at `editloop registry {request.model}`, "
                f"and decide again; after {LOCK_EXPIRY_SECONDS:.0f} s it counts as broken off."
            )
        abandoned = _request_from_tags(rival.tags)
        expired.append(rival.experiment_id)
    try:
        if attempt > 1:
            _refuse_recorded(request.model, number)
        yield PromotionLock(request.model, number, attempt, abandoned)
    finally:
        for experiment_id in (*expired, experiment):
            with tolerate_error("RESOURCE_DOES_NOT_EXIST"):  # deleted by the caller that took it for abandoned
                api.delete_experiment(str(experiment_id))


def is_superseded(api: "MlflowClient", lock: PromotionLock) -> bool:
    """Return whether another caller took this lock for abandoned.

    Args:
        api: The MlflowClient.
        lock: The lock.
    """
    return api.get_experiment_by_name(_lock_name(lock.model, lock.number, lock.attempt + 1)) is not None


def format_promotion(record: Promotion) -> str:
    """Return a record as one line.

    Args:
        record: The record.
    """
    change = f"moved {record.alias} to version {record.version}" if record.version else f"removed {record.alias}"
    return f"{record.actor} {change} at {record.at} ({record.action}: {record.reason})"


def _refuse_recorded(model: str, number: int) -> None:
    for record in promotions(model):
        if record.number >= number:
            first = f"{model}: another was first: {format_promotion(record)}"
            raise OvertakenError(f"{first}. Nothing was changed; look at it and decide again.")


def _lock_name(model: str, number: int, attempt: int) -> str:
    return f"{RECORDS}/{model}/{number}" + (f".{attempt}" if attempt > 1 else "")


def _create_experiment(api: "MlflowClient", name: str, tags: dict[str, str]) -> str | None:
    """The id of a new experiment; None where the name is taken.

    A request may reach the server twice. The token then shows that the existing experiment is this caller's own.
    """
    with tolerate_error("RESOURCE_ALREADY_EXISTS"):
        return str(api.create_experiment(name, tags=tags))
    experiment = api.get_experiment_by_name(name)
    return str(experiment.experiment_id) if experiment and experiment.tags.get("token") == tags["token"] else None


def _request_tags(request: PromotionRequest) -> dict[str, str]:
    tags = asdict(request)
    return {f"evidence.{key}": value for key, value in tags.pop("evidence").items()} | tags


def _request_from_tags(tags: dict[str, str]) -> PromotionRequest:
    evidence = {key.removeprefix("evidence."): value for key, value in tags.items() if key.startswith("evidence.")}
    plain = {field.name: tags.get(field.name, "") for field in fields(PromotionRequest) if field.name != "evidence"}
    return PromotionRequest(**plain, evidence=evidence)

"""Who may move an alias: one caller at a time, decided by MLflow's server.

The server lets one caller alone make an experiment of a name, deleted ones included. A move of number n claims
`editloop-registry/NAME/n`, and the claim says what is meant. When the record of n is written, or nothing was done, the
claim is deleted, out of sight. A claim that stays, with no record, is of a caller that died: after PATIENCE the next
one claims `.../n.2` and settles what it finds.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import count
from typing import Any

from editloop.errors import EditLoopError
from editloop.lineage.registry import RECORDS, Promotion, promotions

LOCK_EXPIRY_SECONDS = 60.0
"""Seconds after which a claim without a record counts as left behind; a move takes one or two."""


class OvertakenError(EditLoopError):
    """Somebody else moved the alias, or is about to."""


@dataclass(frozen=True)
class PromotionRequest:
    """What a caller means to do: a record before it is one."""

    action: str
    model: str
    version: str
    alias: str
    actor: str
    reason: str
    previous: str
    verdict: str
    evidence: dict[str, str]


@dataclass(frozen=True)
class PromotionLock:
    """The right to write record `number`; `left`, what a dead caller meant to write there."""

    model: str
    number: int
    attempt: int
    left: PromotionRequest | None


@contextmanager
def promotion_lock(api: Any, request: PromotionRequest, number: int) -> Iterator[PromotionLock]:
    """Hold number `number` of the model's history for `move`; released at the end.

    Raises OvertakenError where the number has its record already, or its claim is another's and fresh.
    """
    token = uuid.uuid4().hex
    tags = {"token": token} | _request_tags(request)
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
        age = time.time() - rival.creation_time / 1000
        if age < LOCK_EXPIRY_SECONDS:
            raise OvertakenError(
                f"{rival.tags.get('actor')} began to move {request.model}@{rival.tags.get('alias')} to version "
                f"{rival.tags.get('version')} {max(age, 0):.0f} s ago. Look at `editloop registry {request.model}`, "
                "and "
                f"decide again; after {LOCK_EXPIRY_SECONDS:.0f} s it counts as broken off."
            )
        abandoned = _request_from_tags(rival.tags)
        expired.append(rival.experiment_id)
    try:
        if attempt > 1:
            _refuse_recorded(request.model, number)
        yield PromotionLock(request.model, number, attempt, abandoned)
    finally:
        for experiment_id in (*expired, experiment):
            _release(api, experiment_id)


def is_superseded(api: Any, lock: PromotionLock) -> bool:
    """Whether another caller took this claim for left behind."""
    return api.get_experiment_by_name(_lock_name(lock.model, lock.number, lock.attempt + 1)) is not None


def format_promotion(record: Promotion) -> str:
    """A record in a line."""
    change = f"moved {record.alias} to version {record.version}" if record.version else f"removed {record.alias}"
    return f"{record.actor} {change} at {record.at} ({record.action}: {record.reason})"


def _refuse_recorded(model: str, number: int) -> None:
    for record in promotions(model):
        if record.number >= number:
            raise OvertakenError(
                f"{model}: another was first: {format_promotion(record)}. Nothing was changed; look at it and decide "
                "again."
            )


def _lock_name(model: str, number: int, attempt: int) -> str:
    return f"{RECORDS}/{model}/{number}" + (f".{attempt}" if attempt > 1 else "")


def _create_experiment(api: Any, name: str, tags: dict[str, str]) -> str | None:
    """The id of a new experiment; None where the name is taken. A request that went out twice is ours all the same."""
    from mlflow.exceptions import MlflowException

    try:
        return str(api.create_experiment(name, tags=tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    experiment = api.get_experiment_by_name(name)
    return str(experiment.experiment_id) if experiment and experiment.tags.get("token") == tags["token"] else None


def _release(api: Any, experiment: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        api.delete_experiment(experiment)
    except MlflowException as error:  # who took it for left behind has deleted it
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _request_tags(request: PromotionRequest) -> dict[str, str]:
    plain = {
        field.name: str(getattr(request, field.name)) for field in fields(PromotionRequest) if field.name != "evidence"
    }
    return plain | {f"evidence.{key}": value for key, value in request.evidence.items()}


def _request_from_tags(tags: dict[str, str]) -> PromotionRequest:
    evidence = {key.removeprefix("evidence."): value for key, value in tags.items() if key.startswith("evidence.")}
    plain = {field.name: tags.get(field.name, "") for field in fields(PromotionRequest) if field.name != "evidence"}
    return PromotionRequest(**plain, evidence=evidence)

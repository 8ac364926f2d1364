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

from infra.errors import EditLoopError
from infra.registry import RECORDS, Promotion, promotions

PATIENCE = 60.0
"""Seconds after which a claim without a record counts as left behind; a move takes one or two."""


class OvertakenError(EditLoopError):
    """Somebody else moved the alias, or is about to."""


@dataclass(frozen=True)
class Move:
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
class Claim:
    """The right to write record `number`; `left`, what a dead caller meant to write there."""

    model: str
    number: int
    attempt: int
    left: Move | None


@contextmanager
def claimed(api: Any, move: Move, number: int) -> Iterator[Claim]:
    """Hold number `number` of the model's history for `move`; released at the end.

    Raises OvertakenError where the number has its record already, or its claim is another's and fresh.
    """
    token = uuid.uuid4().hex
    tags = {"token": token} | _tags(move)
    left: Move | None = None
    behind = []
    for attempt in count(1):
        name = _name(move.model, number, attempt)
        experiment = _make(api, name, tags)
        if experiment is not None:
            break
        other = api.get_experiment_by_name(name)
        if other is None:
            raise EditLoopError(f"{name}: MLflow has such an experiment and does not show it; ask for access to it.")
        _refuse_recorded(move.model, number)
        if other.lifecycle_stage == "deleted":
            continue
        age = time.time() - other.creation_time / 1000
        if age < PATIENCE:
            raise OvertakenError(
                f"{other.tags.get('actor')} began to move {move.model}@{other.tags.get('alias')} to version "
                f"{other.tags.get('version')} {max(age, 0):.0f} s ago. Look at `editloop registry {move.model}`, and "
                f"decide again; after {PATIENCE:.0f} s it counts as broken off."
            )
        left = _move(other.tags)
        behind.append(other.experiment_id)
    try:
        if attempt > 1:
            _refuse_recorded(move.model, number)
        yield Claim(move.model, number, attempt, left)
    finally:
        for one in (*behind, experiment):
            _release(api, one)


def superseded(api: Any, claim: Claim) -> bool:
    """Whether another caller took this claim for left behind."""
    return api.get_experiment_by_name(_name(claim.model, claim.number, claim.attempt + 1)) is not None


def told(record: Promotion) -> str:
    """A record in a line."""
    goes = f"moved {record.alias} to version {record.version}" if record.version else f"removed {record.alias}"
    return f"{record.actor} {goes} at {record.at} ({record.action}: {record.reason})"


def _refuse_recorded(model: str, number: int) -> None:
    for record in promotions(model):
        if record.number >= number:
            raise OvertakenError(
                f"{model}: another was first: {told(record)}. Nothing was changed; look at it and decide again."
            )


def _name(model: str, number: int, attempt: int) -> str:
    return f"{RECORDS}/{model}/{number}" + (f".{attempt}" if attempt > 1 else "")


def _make(api: Any, name: str, tags: dict[str, str]) -> str | None:
    """The id of a new experiment; None where the name is taken. A request that went out twice is ours all the same."""
    from mlflow.exceptions import MlflowException

    try:
        return str(api.create_experiment(name, tags=tags))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    found = api.get_experiment_by_name(name)
    return str(found.experiment_id) if found and found.tags.get("token") == tags["token"] else None


def _release(api: Any, experiment: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        api.delete_experiment(experiment)
    except MlflowException as error:  # who took it for left behind has deleted it
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _tags(move: Move) -> dict[str, str]:
    plain = {one.name: str(getattr(move, one.name)) for one in fields(Move) if one.name != "evidence"}
    return plain | {f"evidence.{key}": value for key, value in move.evidence.items()}


def _move(tags: dict[str, str]) -> Move:
    evidence = {key.removeprefix("evidence."): value for key, value in tags.items() if key.startswith("evidence.")}
    plain = {one.name: tags.get(one.name, "") for one in fields(Move) if one.name != "evidence"}
    return Move(**plain, evidence=evidence)

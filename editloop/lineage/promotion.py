"""Promotion and rollback: move the alias `champion` of a registered model by compare-and-set, with one record per move.

MLflow sets an alias without checking where it points. Each move therefore takes the lock of the next record number
(`editloop.lineage.promotion_lock`), compares, sets the alias, checks that it stayed, and writes the record with that
number.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from editloop.errors import EditLoopError
from editloop.lineage.promotion_lock import (
    OvertakenError,
    PromotionLock,
    format_promotion,
    is_superseded,
    promotion_lock,
)
from editloop.lineage.promotion_pages import write_promotion_pages
from editloop.lineage.registry import (
    CHAMPION,
    EVIDENCE,
    PREFIX,
    RECORDS,
    TAINTED,
    Promotion,
    PromotionRequest,
    fetch_version,
    find_version,
    parse_model,
    promotions,
    read_promotion,
    tolerate_error,
)
from editloop.lineage.tracking import all_pages, client, quoted, require_experiment

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

MAX_TEXT_LENGTH = 1000
"""Longest actor or reason, in characters."""


@dataclass(frozen=True)
class RegistryState:
    """The present champion and promotion records of a registered model."""

    name: str
    champion: str
    """Version behind the alias `champion`; empty for none."""
    records: list[Promotion]


def promote_version(
    model: str,
    *,
    actor: str,
    reason: str,
    alias: str = CHAMPION,
    replaces: str | None = None,
    without_evidence: bool = False,
) -> Promotion:
    """Point an alias at a version, and record who did it, why and on what evidence.

    The version's files and signature are checked first. A new champion needs the verdict "promote" of its gate, and
    must not have learnt from withdrawn data. Where the alias already points at the version and a record says so,
    nothing changes and that record is returned.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.
        actor: Who decides, 1 to 1000 characters.
        reason: Why, 1 to 1000 characters.
        alias: The alias to move.
        replaces: The version that must have the alias now, "" for none; refused where it is another. None: no check.
        without_evidence: Promote a version without the verdict "promote". The record has no evidence then.

    Returns:
        The record of the move.

    Raises:
        OvertakenError: Another caller moved the alias first, or is moving it. It is an EditLoopError too.
        EditLoopError: Any other condition above does not hold, or there is no such version.
    """
    _check_texts(actor, reason)
    version = require_version(model)
    name, number = version.name, str(version.version)
    verdict = version.tags.get("editloop.verdict", "")
    evidence = {key: version.tags[f"editloop.{key}"] for key in EVIDENCE if version.tags.get(f"editloop.{key}")}
    if alias == CHAMPION and not without_evidence and not (verdict == "promote" and evidence):
        raise EditLoopError(
            f"{name} version {number}: its gate said {verdict or 'nothing'}"
            f"{'' if evidence or not verdict else ', with no evidence on record'}. Run its benchmark and gate; or, if "
            "you know better, --without-evidence, which stays on record."
        )
    if alias == CHAMPION:
        _refuse_tainted(version)
    if verdict != "promote":
        evidence = {}
    fetch_version(version)
    state = sync_registry_state(name)
    api = client()
    previous = state.champion if alias == CHAMPION else alias_version(api, name, alias)
    records = [record for record in state.records if record.alias == alias and record.version == number]
    if previous == number and records:
        return records[-1]
    if replaces is not None and previous != replaces:
        last = f": {format_promotion(state.records[-1])}" if state.records else ""
        raise OvertakenError(
            f"{name}@{alias} is {_version_text(previous)} by now, not {_version_text(replaces)}{last}. Nothing "
            "was changed. Compare the new version with that one first."
        )
    request = PromotionRequest(
        action="promote",
        model=name,
        version=number,
        alias=alias,
        actor=actor,
        reason=reason,
        previous=previous,
        verdict=verdict,
        evidence=evidence,
    )
    return _carry_out(api, request, state.records)


def rollback_champion(name: str, *, actor: str, reason: str) -> Promotion:
    """Point `champion` back at the previous champion in the records. Each further call goes back one more.

    Args:
        name: Name in the registry.
        actor: Who decides, 1 to 1000 characters.
        reason: Why, 1 to 1000 characters.

    Returns:
        The record of the rollback.

    Raises:
        OvertakenError: Another caller moved the alias first, or is moving it. It is an EditLoopError too.
        EditLoopError: There is no previous champion, it learnt from withdrawn data, or its files or signature fail the
            check.
    """
    _check_texts(actor, reason)
    state = sync_registry_state(name)
    earlier_champions = [version for version in champion_history(state.records)[:-1] if version]
    if not earlier_champions:
        raise EditLoopError(
            f"{name}: the records know no champion before {_version_text(state.champion)} to go back to."
        )
    version = require_version(f"models:/{name}/{earlier_champions[-1]}")
    _refuse_tainted(version)
    fetch_version(version)
    promoted = [
        record for record in state.records if record.alias == CHAMPION and record.version == earlier_champions[-1]
    ]
    request = PromotionRequest(
        action="rollback",
        model=name,
        version=earlier_champions[-1],
        actor=actor,
        reason=reason,
        previous=state.champion,
        verdict=promoted[-1].verdict,
        evidence=promoted[-1].evidence,
    )
    return _carry_out(client(), request, state.records)


def _refuse_tainted(version: "ModelVersion") -> None:
    """Raise EditLoopError for a version that learnt from data that was withdrawn since."""
    if reason := version.tags.get(TAINTED):
        raise EditLoopError(
            f"{version.name} version {version.version} learnt from what was withdrawn ({reason}). Train, gate and "
            "promote a model on the version of the dataset without it."
        )


def champion_history(records: list[Promotion]) -> list[str]:
    """Return the versions that a rollback can go back through, oldest first, with the present champion last.

    A rollback removes what it rolled back from this list. An empty text stands for a time without a champion.

    Args:
        records: Records of one model, oldest first.
    """
    history: list[str] = []
    for record in records:
        if record.alias != CHAMPION:
            continue
        if record.action == "rollback":
            while history and history[-1] != record.version:
                history.pop()
        if history[-1:] != [record.version]:
            history.append(record.version)
    return history


def next_record_number(records: list[Promotion]) -> int:
    """Return the number of the next record.

    Args:
        records: Records of one model, oldest first.
    """
    return records[-1].number + 1 if records else 1


def sync_registry_state(name: str) -> RegistryState:
    """Return a model's state, after recording a champion that was set by hand in MLflow.

    Such a record has the action "by hand" and no evidence. It is left out where another caller holds the lock: that
    move, or its record, explains the difference.

    Args:
        name: Name in the registry.

    Raises:
        EditLoopError: The registry has no such model.
    """
    api = client()
    state = _registry_state(api, name)
    recorded = (champion_history(state.records) or [""])[-1]
    if state.champion == recorded:
        return state
    request = PromotionRequest(
        action="by hand",
        model=name,
        version=state.champion,
        actor="unknown",
        reason="set by hand in MLflow, no evidence",
        previous=recorded,
    )
    try:
        with promotion_lock(api, request, next_record_number(state.records)) as lock:
            finished_record = _finish_abandoned(api, lock, state.records)
            if not finished_record and alias_version(api, name, CHAMPION) == state.champion:
                _record(api, request, lock.number, state.records)
    except OvertakenError:
        pass  # another caller's move explains the difference, or its record does by now
    return _registry_state(api, name)


def require_version(model: str) -> "ModelVersion":
    """Return the registered version (MLflow's ModelVersion) behind an address.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: There is no such version; the message lists those that exist.
    """
    version = find_version(model)
    if version is not None:
        return version
    name, _, _ = parse_model(model)
    api = client()
    with tolerate_error("RESOURCE_DOES_NOT_EXIST"):
        api.get_registered_model(name)
        versions = all_pages(api.search_model_versions, f"name = {quoted(name)}")
        numbers = sorted(int(present.version) for present in versions)
        raise EditLoopError(f"{model}: no such version; {name} has {', '.join(map(str, numbers)) or 'none'}.")
    names = ", ".join(sorted(registered.name for registered in all_pages(api.search_registered_models))) or "none"
    raise EditLoopError(f"{model}: the registry has no model {name}; it has {names}.")


def alias_version(api: "MlflowClient", name: str, alias: str) -> str:
    """Return the version behind an alias; empty for none.

    Args:
        api: The MlflowClient.
        name: Name in the registry.
        alias: The alias.

    Raises:
        EditLoopError: The registry has no such model.
    """
    with tolerate_error("RESOURCE_DOES_NOT_EXIST"):
        return str(api.get_registered_model(name).aliases.get(alias, ""))
    raise EditLoopError(f"{name}: the registry has no such model; `editloop registry` lists them.")


def _carry_out(api: "MlflowClient", request: PromotionRequest, records: list[Promotion]) -> Promotion:
    """Move the alias under the lock: compare, set, check, record."""
    with promotion_lock(api, request, next_record_number(records)) as lock:
        if finished_record := _finish_abandoned(api, lock, records):
            raise OvertakenError(
                f"{request.model}: another was first: {format_promotion(finished_record)}. Look at it and decide again."
            )
        actual_version = alias_version(api, request.model, request.alias)
        if actual_version != request.previous:
            raise OvertakenError(
                f"{request.model}@{request.alias} was set to {_version_text(actual_version)} by hand just now. Look "
                "at it and decide again."
            )
        api.set_registered_model_alias(request.model, request.alias, request.version)
        actual_version = alias_version(api, request.model, request.alias)
        if is_superseded(api, lock):
            for record in promotions(request.model):
                if (record.number, record.actor, record.version) == (lock.number, request.actor, request.version):
                    return record
            raise OvertakenError(
                f"{request.model}: this took so long that another took over; `editloop registry` tells."
            )
        if actual_version != request.version:
            raise OvertakenError(
                f"{request.model}@{request.alias} was set to version {request.version}, and is "
                f"{_version_text(actual_version)} now: somebody set it by hand at the same moment. Look at it and "
                "decide again."
            )
        return _record(api, request, lock.number, records)


def _finish_abandoned(api: "MlflowClient", lock: PromotionLock, records: list[Promotion]) -> Promotion | None:
    """Write the record of a move whose caller died after it had set the alias. None where no record is missing."""
    abandoned = lock.left
    if abandoned is None or abandoned.action == "by hand" or abandoned.version == abandoned.previous:
        return None
    if alias_version(api, abandoned.model, abandoned.alias) != abandoned.version:
        return None
    return _record(api, abandoned, lock.number, records)


def _record(api: "MlflowClient", request: PromotionRequest, number: int, records: list[Promotion]) -> Promotion:
    """Write the record with this number in one request, then update the pages that show the records."""
    tags = asdict(request)
    tags |= tags.pop("evidence") | {"number": str(number), "at": datetime.now(UTC).isoformat(timespec="seconds")}
    run = api.create_run(
        require_experiment(api, RECORDS),
        run_name=f"{request.model} {number}: {request.alias} is {_version_text(request.version)}",
        tags={f"{PREFIX}{key}": value for key, value in tags.items()},
    )
    api.set_terminated(run.info.run_id)
    record = read_promotion(run)
    write_promotion_pages(api, request.model, [*records, record])
    return record


def _registry_state(api: "MlflowClient", name: str) -> RegistryState:
    records = promotions(name)  # read before the alias: who moves it in between holds the next number
    return RegistryState(name, alias_version(api, name, CHAMPION), records)


def _check_texts(actor: str, reason: str) -> None:
    for key, value in (("actor", actor), ("reason", reason)):
        if not value.strip() or len(value) > MAX_TEXT_LENGTH:
            raise EditLoopError(
                f"--{key} {value[:40]!r}: say it in 1 to {MAX_TEXT_LENGTH} characters; it stays on record."
            )


def _version_text(version: str) -> str:
    return f"version {version}" if version else "no version"

"""The champion of a registered model moves by compare-and-set, with a check after it, and one record a time.

MLflow sets an alias without asking where it points. So each move claims its number in the model's history
(`infra.promotion_claims`), compares, moves the alias, looks whether it stayed, and writes the record of that number.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra.errors import EditLoopError
from infra.promotion_claims import Claim, Move, OvertakenError, claimed, superseded, told
from infra.promotion_pages import show
from infra.registry import (
    CHAMPION,
    EVIDENCE,
    PREFIX,
    RECORDS,
    TAINTED,
    Promotion,
    fetch_version,
    find_version,
    promotions,
    read_promotion,
    records_experiment,
)
from infra.tracking import client, quoted

BY_HAND = Move(
    action="by hand",
    model="",
    version="",
    alias=CHAMPION,
    actor="unknown",
    reason="set by hand in MLflow, no evidence",
    previous="",
    verdict="",
    evidence={},
)
LONGEST = 1000
"""Characters of an actor or a reason, at most."""


@dataclass(frozen=True)
class Standing:
    """What the registry has of a model now."""

    name: str
    champion: str
    """Version behind the alias; empty for none."""
    records: list[Promotion]


def promote(
    model: str,
    *,
    actor: str,
    reason: str,
    alias: str = CHAMPION,
    replaces: str | None = None,
    without_evidence: bool = False,
) -> Promotion:
    """Point `alias` at a version (`models:/NAME@ALIAS` or `models:/NAME/VERSION`) and record it.

    replaces: the version that the alias must point at now ("" for none); None takes it as it is at the call. The
    version's files and signature are checked first. A champion's gate must have said "promote", or `without_evidence`
    be given, which the record keeps; and it must not have learnt from what was withdrawn since. What is the champion
    already stays so, and its record is returned.

    Raises EditLoopError where any of this does not hold; OvertakenError, which is one, where another move came first.
    """
    _checked(actor, reason)
    version = existing(model)
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
        _untainted(version)
    if verdict != "promote":
        evidence = {}
    fetch_version(version)
    standing = notice(name)
    if replaces is not None and standing.champion != replaces:
        last = f": {told(standing.records[-1])}" if standing.records else ""
        raise OvertakenError(
            f"{name}@{alias} is {_named(standing.champion)} by now, not {_named(replaces)}{last}. Nothing was changed."
        )
    api = client()
    previous = standing.champion if alias == CHAMPION else alias_version(api, name, alias)
    records = [one for one in standing.records if one.alias == alias and one.version == number]
    if previous == number and records:
        return records[-1]
    move = Move(
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
    return _carry_out(api, move, standing.records)


def rollback(name: str, *, actor: str, reason: str) -> Promotion:
    """Point `champion` back at the champion before, by the records; a second call goes one further back.

    Raises EditLoopError where there is none before, or it is not fit to be loaded; OvertakenError as `promote` does.
    """
    _checked(actor, reason)
    standing = notice(name)
    before = [version for version in champions(standing.records)[:-1] if version]
    if not before:
        raise EditLoopError(f"{name}: the records know no champion before {_named(standing.champion)} to go back to.")
    version = existing(f"models:/{name}/{before[-1]}")
    _untainted(version)
    fetch_version(version)
    moves = [one for one in reversed(standing.records) if one.alias == CHAMPION and one.version == before[-1]]
    move = Move(
        action="rollback",
        model=name,
        version=before[-1],
        alias=CHAMPION,
        actor=actor,
        reason=reason,
        previous=standing.champion,
        verdict=moves[0].verdict,
        evidence=moves[0].evidence,
    )
    return _carry_out(client(), move, standing.records)


def _untainted(version: Any) -> None:
    """EditLoopError for a version that learnt from what was withdrawn since."""
    if told_why := version.tags.get(TAINTED):
        raise EditLoopError(
            f"{version.name} version {version.version} learnt from what was withdrawn ({told_why}). Train, gate and "
            "promote a model on the version of the dataset without it."
        )


def champions(records: list[Promotion]) -> list[str]:
    """The champions that a rollback can go back through, the present one last: what was rolled back is gone from it."""
    found: list[str] = []
    for record in records:
        if record.alias != CHAMPION:
            continue
        if record.action == "rollback":
            while found and found[-1] != record.version:
                found.pop()
        if found[-1:] != [record.version]:
            found.append(record.version)
    return found


def following(records: list[Promotion]) -> int:
    """The number that the next record gets."""
    return records[-1].number + 1 if records else 1


def notice(name: str) -> Standing:
    """The model as it stands; an alias that was set by hand meanwhile gets its record first, without evidence."""
    api = client()
    standing = _standing(api, name)
    recorded = (champions(standing.records) or [""])[-1]
    if standing.champion == recorded:
        return standing
    move = replace(BY_HAND, model=name, version=standing.champion, previous=recorded)
    try:
        with claimed(api, move, following(standing.records)) as claim:
            settled = _settle(api, claim, standing.records)
            if not settled and alias_version(api, name, CHAMPION) == standing.champion:
                _record(api, move, claim.number, standing.records)
    except OvertakenError:
        pass  # a move that is on its way explains it, or has its record by now
    return _standing(api, name)


def existing(model: str) -> Any:
    """The registered version behind an address; EditLoopError that lists what there is where it points nowhere."""
    from mlflow.exceptions import MlflowException

    version = find_version(model)
    if version is not None:
        return version
    name = model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    api = client()
    try:
        api.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = ", ".join(sorted(one.name for one in api.search_registered_models())) or "none"
        raise EditLoopError(f"{model}: the registry has no model {name}; it has {names}.") from None
    known = sorted(int(one.version) for one in api.search_model_versions(f"name = {quoted(name)}"))
    raise EditLoopError(f"{model}: no such version; {name} has {', '.join(map(str, known)) or 'none'}.")


def alias_version(api: Any, name: str, alias: str) -> str:
    """The version behind an alias, empty for none. EditLoopError where the registry has no such model."""
    from mlflow.exceptions import MlflowException

    try:
        aliases = api.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise EditLoopError(f"{name}: the registry has no such model; `editloop registry` lists them.") from None
    return str(aliases.get(alias, ""))


def _carry_out(api: Any, move: Move, records: list[Promotion]) -> Promotion:
    """Compare, set, look again, record."""
    with claimed(api, move, following(records)) as claim:
        if settled := _settle(api, claim, records):
            raise OvertakenError(f"{move.model}: another was first: {told(settled)}. Look at it and decide again.")
        found = alias_version(api, move.model, move.alias)
        if found != move.previous:
            raise OvertakenError(
                f"{move.model}@{move.alias} was set to {_named(found)} by hand just now. Look at it and decide again."
            )
        api.set_registered_model_alias(move.model, move.alias, move.version)
        found = alias_version(api, move.model, move.alias)
        if superseded(api, claim):
            mine = [one for one in promotions(move.model) if one.number == claim.number and one.actor == move.actor]
            if mine and mine[0].version == move.version:
                return mine[0]
            raise OvertakenError(f"{move.model}: this took so long that another took over; `editloop registry` tells.")
        if found != move.version:
            raise OvertakenError(
                f"{move.model}@{move.alias} was set to version {move.version}, and is {_named(found)} now: somebody "
                "set it by hand at the same moment. Look at it and decide again."
            )
        return _record(api, move, claim.number, records)


def _settle(api: Any, claim: Claim, records: list[Promotion]) -> Promotion | None:
    """Give a dead caller's move its record where it was carried out; None where there is nothing to settle."""
    left = claim.left
    if left is None or left.action == "by hand" or left.version == left.previous:
        return None
    if alias_version(api, left.model, left.alias) != left.version:
        return None
    return _record(api, left, claim.number, records)


def _record(api: Any, move: Move, number: int, records: list[Promotion]) -> Promotion:
    """Write record `number` after `records`, in one request, and show it where people look."""
    tags = {
        "number": str(number),
        "action": move.action,
        "model": move.model,
        "version": move.version,
        "alias": move.alias,
        "actor": move.actor,
        "reason": move.reason,
        "previous": move.previous,
        "verdict": move.verdict,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    } | move.evidence
    named = {f"{PREFIX}{key}": value for key, value in tags.items()}
    run = api.create_run(
        _experiment(api), run_name=f"{move.model} {number}: {move.alias} is {_named(move.version)}", tags=named
    )
    api.set_terminated(run.info.run_id)
    record = read_promotion(run)
    show(api, move.model, [*records, record])
    return record


def _standing(api: Any, name: str) -> Standing:
    records = promotions(name)  # before the alias: whoever sets it in between has claimed the number that follows
    return Standing(name, alias_version(api, name, CHAMPION), records)


def _checked(actor: str, reason: str) -> None:
    for key, value in (("actor", actor), ("reason", reason)):
        if not value.strip() or len(value) > LONGEST:
            raise EditLoopError(f"--{key} {value[:40]!r}: say it in 1 to {LONGEST} characters; it stays on record.")


def _named(version: str) -> str:
    return f"version {version}" if version else "no version"


def _experiment(api: Any) -> str:
    from mlflow.exceptions import MlflowException

    found = records_experiment(api)
    if found is None:
        try:
            return str(api.create_experiment(RECORDS))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = str(records_experiment(api))
    return found

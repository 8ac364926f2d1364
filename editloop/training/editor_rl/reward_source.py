"""The judge that an editor may learn from: a registered, signed champion, in its folder or behind a server."""

from pathlib import Path
from typing import NamedTuple

from editloop.content import read_manifest
from editloop.errors import EditLoopError
from editloop.lineage.registry import CHAMPION, fetch_version, find_version, parse_model, promotions


class RewardSource(NamedTuple):
    """A judge whose scores may be the reward."""

    address: str
    """Where the training opens it: a folder or a server."""
    name: str
    """Registered name of the model."""
    sha256: str
    """Content address of the champion's weights."""
    folder: Path
    """The champion's files, already checked. Set for a server as well."""


def champion_reward_source(reward: str) -> RewardSource:
    """Return the champion behind an address.

    Args:
        reward: `models:/NAME@champion`, `models:/NAME/VERSION` of one that is or was champion (a run goes on with the
            one that it began with), or `http(s)://HOST:PORT` of a server that serves a champion.

    Raises:
        EditLoopError: The address is of another model, there is no champion, its files or its signature are not valid,
            or the server serves another model.
    """
    if reward.startswith(("http://", "https://")):
        return _served(reward)
    if not reward.startswith("models:/") or not _is_champion(reward):
        raise EditLoopError(
            f"reward {reward!r}: only a registered champion may teach; give models:/NAME@{CHAMPION}, the number of one "
            "that is or was champion, or the address http://HOST:PORT of `editloop serve` with that champion."
        )
    version = find_version(reward)
    if version is None:
        raise EditLoopError(f"{reward}: there is no champion. Train and promote a reward model first (train-reward).")
    folder = fetch_version(version)
    return RewardSource(str(folder), version.name, str(read_manifest(folder)["sha256"]), folder)


def _is_champion(reward: str) -> bool:
    """Whether an address in the registry is that of a champion, by its alias or by a number that is or was champion."""
    name, alias, number = parse_model(reward)
    if number is None:
        return alias == CHAMPION
    champion = find_version(f"models:/{name}@{CHAMPION}")
    if champion is not None and str(champion.version) == number:
        return True
    return any(record.alias == CHAMPION and record.version == number for record in promotions(name))


def _served(address: str) -> RewardSource:
    from editloop.scoring.opening import open_judge

    judge = open_judge(address)
    name = f"models:/{judge.name}@{CHAMPION}"
    version = find_version(name)
    if version is None:
        raise EditLoopError(f"{address} serves a model of {judge.name}, which has no champion: promote one first.")
    champion = str(version.tags.get("editloop.sha256"))
    if judge.version != champion:
        raise EditLoopError(
            f"{address} serves {judge.name} {judge.version}; the champion is version {version.version}, {champion}. "
            f"Only a champion may teach: start the server with {name}."
        )
    return RewardSource(address, judge.name, champion, fetch_version(version))

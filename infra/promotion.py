"""The champion of a registered model moves by compare-and-set, with a check after it, and one record a time.

MLflow sets an alias without asking where it points. What its server does decide between two callers is who makes an
experiment of a name first. So each move claims its number by such a name, moves the alias, looks whether it stayed, and
writes the record of that number. A claim whose maker died is found and settled by the next one.
"""

from dataclasses import dataclass
from typing import Any

from infra.registry import Promotion


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
    alias: str = "champion",
    replaces: str | None = None,
    without_evidence: bool = False,
) -> Promotion:
    """Point `alias` at a version (`models:/NAME@ALIAS` or `models:/NAME/VERSION`) and record it.

    replaces: the version that the alias must point at now ("" for none); None takes it as it is at the call. The
    version's files and signature are checked first. Its gate must have said "promote", or `without_evidence` be given,
    which the record keeps. Raises EditLoopError where any of this does not hold or another promotion came first.
    """
    raise NotImplementedError


def rollback(name: str, *, actor: str, reason: str) -> Promotion:
    """Point `champion` back at the champion before, by the records; EditLoopError where there is none."""
    raise NotImplementedError


def notice(name: str) -> Standing:
    """The model as it stands; an alias that was set by hand meanwhile gets its record first, without evidence."""
    raise NotImplementedError


def alias_version(api: Any, name: str, alias: str) -> str:
    """The version behind an alias, empty for none."""
    raise NotImplementedError

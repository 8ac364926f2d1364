"""What is wrong with a suite's files or a judge's answers, told at once and not one fault a call."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from editloop.errors import EditLoopError

Key = TypeVar("Key", bound=Hashable)

FAULTS_LISTED = 20
"""Faults that a message names."""


def raise_faults(faults: Sequence[str], what: str) -> None:
    """EditLoopError of the first faults, where there are any; `what` is the file or folder they are in."""
    if not faults:
        return
    omitted = [f"  and {len(faults) - FAULTS_LISTED} more"] if len(faults) > FAULTS_LISTED else []
    listing = "\n".join([*(f"  {fault}" for fault in faults[:FAULTS_LISTED]), *omitted])
    raise EditLoopError(f"{what}: {len(faults)} fault(s), nothing was measured:\n{listing}")


def duplicates(keys: Iterable[Key]) -> list[Key]:
    """The keys that come more than once, each once."""
    return [key for key, count in Counter(keys).items() if count > 1]

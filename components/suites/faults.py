"""What is wrong with a suite's files or a judge's answers, told at once and not one fault a call."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from infra.errors import EditLoopError

Key = TypeVar("Key", bound=Hashable)

TOLD = 20
"""Faults that a message names."""


def refuse(faults: Sequence[str], what: str) -> None:
    """EditLoopError of the first faults, where there are any; `what` is the file or folder they are in."""
    if not faults:
        return
    more = [f"  and {len(faults) - TOLD} more"] if len(faults) > TOLD else []
    told = "\n".join([*(f"  {fault}" for fault in faults[:TOLD]), *more])
    raise EditLoopError(f"{what}: {len(faults)} fault(s), nothing was measured:\n{told}")


def twice(keys: Iterable[Key]) -> list[Key]:
    """The keys that come more than once, each once."""
    return [key for key, times in Counter(keys).items() if times > 1]

"""Reports all faults of a suite's files or of a judge's answers in one message."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from editloop.errors import EditLoopError

Key = TypeVar("Key", bound=Hashable)

FAULTS_LISTED = 20
"""Most faults that a message lists."""


def raise_faults(faults: Sequence[str], what: str) -> None:
    """Raise an error that lists the first faults; do nothing if there are none.

    Args:
        faults: The faults, a sentence each.
        what: The file or folder that they are in.

    Raises:
        EditLoopError: There are faults.
    """
    if not faults:
        return
    omitted = [f"  and {len(faults) - FAULTS_LISTED} more"] if len(faults) > FAULTS_LISTED else []
    listing = "\n".join([*(f"  {fault}" for fault in faults[:FAULTS_LISTED]), *omitted])
    raise EditLoopError(f"{what}: {len(faults)} fault(s), nothing was measured:\n{listing}")


def duplicates(keys: Iterable[Key]) -> list[Key]:
    """Return the keys that occur more than once, each one time, in order of first occurrence.

    Args:
        keys: The keys.
    """
    return [key for key, count in Counter(keys).items() if count > 1]

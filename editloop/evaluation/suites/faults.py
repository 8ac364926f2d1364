"""Reports all faults of a suite's files or of a judge's answers in one message."""

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

from editloop.errors import EditLoopError, listed_faults

Key = TypeVar("Key", bound=Hashable)

FAULTS_LISTED = 20
"""Most faults that a message lists."""


class NothingToMeasureError(EditLoopError):
    """A suite's folder is there and sound, but has nothing that the suite measures."""


def raise_faults(faults: Sequence[str], what: str) -> None:
    """Raise an error that lists the first faults; do nothing if there are none.

    Args:
        faults: The faults, a sentence each.
        what: The file or folder that they are in.

    Raises:
        EditLoopError: There are faults.
    """
    if faults:
        raise listed_faults(f"{what}: {len(faults)} fault(s), nothing was measured:", faults, FAULTS_LISTED)


def duplicates(keys: Iterable[Key]) -> list[Key]:
    """Return the keys that occur more than once, each one time, in order of first occurrence.

    Args:
        keys: The keys.
    """
    return [key for key, count in Counter(keys).items() if count > 1]

"""The outcome of each unit of a suite for one judge: all that a gate's statistics need of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError


@dataclass(frozen=True)
class Outcomes:
    """N units, each right or wrong by the rules of the suite's publication; `keys` pair the units of two judges."""

    suite: str
    keys: tuple[str, ...]
    """N different names."""
    clusters: tuple[str, ...]
    """N. Units of one cluster (which share an image) are dependent, and are resampled together."""
    slices: tuple[str, ...]
    """N task types, so that a gate can examine slices."""
    right: NDArray[np.float64]
    """(N,), 0..1. A unit without an answer is 0."""
    missing: NDArray[np.bool_]
    """(N,). Whether the judge left the unit without an answer."""

    def __len__(self) -> int:
        return len(self.keys)


def shared_outcomes(new: Outcomes, old: Outcomes) -> tuple[Outcomes, Outcomes]:
    """Return two judges' outcomes on the units that both have, each in its own order.

    Args:
        new: Outcomes of one judge.
        old: Outcomes of another on the same suite, of which either may have left units out.
    """
    shared = set(new.keys) & set(old.keys)
    return _only(new, shared), _only(old, shared)


def _only(outcomes: Outcomes, keys: set[str]) -> Outcomes:
    indices = [index for index, key in enumerate(outcomes.keys) if key in keys]
    return Outcomes(
        outcomes.suite,
        tuple(outcomes.keys[index] for index in indices),
        tuple(outcomes.clusters[index] for index in indices),
        tuple(outcomes.slices[index] for index in indices),
        outcomes.right[indices],
        outcomes.missing[indices],
    )


def align_outcomes(new: Outcomes, old: Outcomes) -> Outcomes:
    """Return `old`'s outcomes in the order of `new`'s units.

    Args:
        new: The outcomes that give the order.
        old: Outcomes of the same units.

    Raises:
        EditLoopError: The two are of different suites or units.
    """
    indices = {key: index for index, key in enumerate(old.keys)}
    unmatched = sorted(indices.keys() ^ set(new.keys))
    if unmatched or new.suite != old.suite:
        raise EditLoopError(
            f"{new.suite} and {old.suite}: {len(unmatched)} units are in one and not in the other "
            f"({', '.join(unmatched[:3])}); two judges are compared on the same units only."
        )
    order: Sequence[int] = [indices[key] for key in new.keys]
    return replace(new, right=old.right[order], missing=old.missing[order])

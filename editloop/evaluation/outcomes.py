"""What became of a suite's units with one judge: all that a gate's statistics need of a benchmark."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError


@dataclass(frozen=True)
class Outcomes:
    """N units, each right or not as the suite's publication counts; two judges' are paired by the keys."""

    suite: str
    keys: tuple[str, ...]
    """N names, no two alike."""
    clusters: tuple[str, ...]
    """N. Units of one cluster (one source picture, one task) are not independent of each other: resampled together."""
    slices: tuple[str, ...]
    """N. The task type, so that a gate can hold slices apart."""
    right: NDArray[np.float64]
    """(N,), 0..1. A unit without an answer is 0."""
    missing: NDArray[np.bool_]
    """(N,). Units that the judge left without an answer."""

    def __len__(self) -> int:
        return len(self.keys)


def align_outcomes(new: Outcomes, old: Outcomes) -> Outcomes:
    """`old`'s outcomes in the order of `new`'s units. EditLoopError where they are not of the same units."""
    indices = {key: index for index, key in enumerate(old.keys)}
    unmatched = sorted(indices.keys() ^ set(new.keys))
    if unmatched or new.suite != old.suite:
        raise EditLoopError(
            f"{new.suite} and {old.suite}: {len(unmatched)} units are in one and not in the other "
            f"({', '.join(unmatched[:3])}); two judges are compared on the same units only."
        )
    order: Sequence[int] = [indices[key] for key in new.keys]
    return Outcomes(
        suite=old.suite,
        keys=new.keys,
        clusters=new.clusters,
        slices=new.slices,
        right=old.right[order],
        missing=old.missing[order],
    )

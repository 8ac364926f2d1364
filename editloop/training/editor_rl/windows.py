"""Window of stochastic, trained steps in a trajectory (Flow-GRPO-Fast; MixGRPO, arXiv 2507.21802). Imports no torch."""

from typing import Literal

import numpy as np

from editloop.errors import EditLoopError

WindowKind = Literal["fixed", "random", "sliding"]
SLIDE_EVERY = 25
"""Iterations that a sliding window stays in place, as in MixGRPO."""


def trained_window(
    kind: WindowKind, iteration: int, seed: int, *, size: int, reach: int, every: int = SLIDE_EVERY
) -> range:
    """Return the steps of an iteration's window: `size` neighbouring steps among the first `reach`.

    The window depends on the arguments alone, so every rank, and a training that continues, gets the same.

    Args:
        kind: `fixed`: the first steps. `random`: any position with equal probability, drawn anew in each iteration.
            `sliding`: moves one step towards clean steps after every `every` iterations, then starts again at the
            front.
        iteration: The iteration, from 0.
        seed: The training's seed, used by `random`.
        size: Number of steps in the window.
        reach: Number of first steps that the window lies within.
        every: Iterations that a sliding window stays in place.

    Raises:
        EditLoopError: The window does not fit, or `every` is below 1.
    """
    if not 1 <= size <= reach or every < 1:
        raise EditLoopError(
            f"window of {size} in the first {reach} steps, a step on every {every} iterations: it needs at least one "
            "step and at most all of those it lies in."
        )
    places = reach - size + 1
    if kind == "fixed":
        start = 0
    elif kind == "random":
        start = int(np.random.default_rng([seed, iteration]).integers(places))
    else:
        start = iteration // every % places
    return range(start, start + size)

"""Which steps of a trajectory are stochastic and trained (Flow-GRPO-Fast, MixGRPO arXiv 2507.21802). No torch."""

from typing import Literal

import numpy as np

from editloop.errors import EditLoopError

WindowKind = Literal["fixed", "random", "sliding"]
SLIDE_EVERY = 25
"""Iterations a sliding window stays where it is, MixGRPO's."""


def trained_window(
    kind: WindowKind, iteration: int, seed: int, *, size: int, reach: int, every: int = SLIDE_EVERY
) -> range:
    """Steps of the window of an iteration (from 0): `size` neighbours among the first `reach` steps.

    `fixed`: the first ones. `random`: each place as likely, drawn anew each iteration. `sliding`: a step on after
    every `every` iterations, from noisy steps to clean ones, and from the front again. A function of its arguments
    alone: every rank, and a training that goes on, finds the same. EditLoopError where the window does not fit.
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

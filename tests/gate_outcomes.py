"""A small gate, and outcomes for it, made by tests."""

import numpy as np

from editloop.evaluation.gates.settings import GateSettings, Slices, SuiteGate
from editloop.evaluation.outcomes import Outcomes

GATE = GateSettings(name="test", suites=(SuiteGate(suite="heldout", minimum=20),), slices=Slices(minimum=10))


def outcomes(right, clusters=None, slices=None, missing=None) -> Outcomes:
    count = len(right)
    return Outcomes(
        "heldout",
        tuple(f"unit {place}" for place in range(count)),
        tuple(clusters or (f"task {place}" for place in range(count))),
        tuple(slices or ("recolour",) * count),
        np.array(right, dtype=float),
        np.array(missing if missing is not None else [False] * count),
    )

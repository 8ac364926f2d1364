"""Names of the solvers of `solvers`, for settings. Imports no torch."""

from typing import Literal

SolverName = Literal["euler", "dpm2"]

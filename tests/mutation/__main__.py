"""Mutation check of the maths and decision modules: do their tests fail on a wrong line?

    python -m tests.mutation                              # the sample, as `make mutants` runs it
    python -m tests.mutation editloop/statistics/mcnemar.py  # every mutant of some modules

Prints the survivors with their reasons and the kill rate. Exit status 1 where fewer than 90 % die, a survivor has no
reason in `accepted.yaml`, or an entry there is stale.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.mutation.check import run_check, verdict
from tests.mutation.modules import NAMED, TESTS
from tests.mutation.mutants import CheckError, read_accepted, select

ROOT = Path(__file__).parents[2]
ACCEPTED = Path(__file__).with_name("accepted.yaml")
PER_THOUSAND = 75
"""Share of all mutants that a run takes: 15 minutes of two cores at most."""


def main(chosen: list[str]) -> int:
    """Check all modules by a sample, or the chosen ones in full; returns the exit status."""
    began = time.monotonic()
    if unknown := [module for module in chosen if module not in TESTS]:
        print(f"{', '.join(unknown)}: no tests are named for it; add it to TESTS in tests/mutation/modules.py.")
        return 1
    modules = chosen or list(TESTS)
    try:
        accepted = read_accepted(ACCEPTED)
        mutants = select(ROOT, modules, NAMED, accepted, 1000 if chosen else PER_THOUSAND)
        print(f"{len(mutants)} mutants of {len(modules)} modules", flush=True)
        _import_libraries()
        with tempfile.TemporaryDirectory() as scratch:
            result = run_check(ROOT, mutants, TESTS, Path(scratch))
    except CheckError as error:
        print(error)
        return 1
    report, is_passed = verdict(result, accepted, chosen or {*TESTS, *(key[0] for key in accepted)})
    print(report)
    print(f"{time.monotonic() - began:.0f} s")
    return 0 if is_passed else 1


def _import_libraries() -> None:
    """What the tests' imports take most time for; each run is forked from this process and has them."""
    import httpx  # noqa: F401
    import hypothesis
    import krippendorff  # noqa: F401
    import pandas  # noqa: F401
    import PIL.Image  # noqa: F401
    import pydantic  # noqa: F401
    import requests  # noqa: F401
    import scipy.optimize
    import scipy.sparse
    import scipy.stats  # noqa: F401
    import torch
    import torch._dynamo  # what the first optimiser imports

    torch.testing.assert_close(torch.zeros(1), torch.zeros(1))  # the first call imports sympy
    torch.set_num_threads(1)
    hypothesis.settings.register_profile("mutation", derandomize=True, deadline=None, database=None)
    hypothesis.settings.load_profile("mutation")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""From a suite's name and a folder to the suite, checked whole before anything is asked."""

from pathlib import Path

from components.suites.suite import Suite


def open_suite(name: str, data: Path | None, labels: Path | None = None) -> Suite:
    """The suite `name` (one of SUITES) in the folder `data`, in its public format; or, without `data`, the votes of
    `labels` (JSON lines: key, label) alone, for judges whose answers are saved.

    EditLoopError that lists what is wrong: missing or faulty pictures, keys that come twice, unknown words.
    """
    raise NotImplementedError

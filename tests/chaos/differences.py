"""How a scenario tells that its outcome is not the quiet one."""

from typing import Any


class DifferenceError(AssertionError):
    """The outcome is not that of a quiet run."""


def expect_equal(name: str, found: Any, expected: Any) -> None:
    """Compare a part of an outcome.

    Args:
        name: The part.
        found: What is there.
        expected: What a quiet run has.

    Raises:
        DifferenceError: They are not equal.
    """
    if found != expected:
        raise DifferenceError(f"{name}: {str(found)[:300]}, not {str(expected)[:300]}")

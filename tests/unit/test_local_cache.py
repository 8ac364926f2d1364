"""Finished steps are kept by what the code does, not by how it is documented."""

import pytest

from pipelines.local import source_digest

SOURCE = """
def double(number):
    '''Twice as much.'''
    return 2 * number


class Settings:
    steps: int = 8
    '''Of a run.'''
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [("Twice as much.", "Return twice as much."), ("Of a run.", ""), ("return", "# as people count\n    return")],
)
def test_documentation_keeps_finished_steps(old: str, new: str) -> None:
    assert old in SOURCE
    assert source_digest(SOURCE.replace(old, new)) == source_digest(SOURCE)


@pytest.mark.parametrize(("old", "new"), [("2 * number", "3 * number"), ("= 8", "= 9"), ("number):", "number=1):")])
def test_code_does_not(old: str, new: str) -> None:
    assert old in SOURCE
    assert source_digest(SOURCE.replace(old, new)) != source_digest(SOURCE)

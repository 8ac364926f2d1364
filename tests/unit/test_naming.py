"""The check of names and docstrings finds what it is called after."""

import pytest

from tests.naming import count

CLEAR = """
def scale(image, factor):
    '''Return the image at another size.

    Args:
        image: The image.
        factor: How many times as large.
    '''
    return image * factor
"""


def test_clear_code_has_no_faults() -> None:
    assert count({"editloop/a.py": CLEAR}).faults() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("return image * factor", "found = image * factor\n    return found"), "vague names per 1,000 lines"),
        (("        factor: How many times as large.\n", ""), "a.py:2 scale: factor: not in the docstring's Args"),
        (("image * factor", "image * factor  # fmt: skip"), "a.py:9: `fmt: skip`"),
    ],
)
def test_each_fault_is_told(change: tuple[str, str], words: str) -> None:
    assert change[0] in CLEAR
    assert words in "; ".join(count({"editloop/a.py": CLEAR.replace(*change)}).faults())


def test_a_public_name_of_two_files_is_told_and_a_private_one_is_not() -> None:
    both = count({"editloop/a.py": CLEAR, "infra/b.py": CLEAR})
    assert "scale: editloop/a.py, infra/b.py" in "; ".join(both.faults())
    private = CLEAR.replace("def scale", "def _scale")
    assert count({"editloop/a.py": private, "infra/b.py": private}).faults() == []

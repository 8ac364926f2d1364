"""The API reference: what the page takes from the source, and that its examples do what they say."""

import doctest
import json
import re
from pathlib import Path

import pytest

import editloop
from tests.api_reference import PAGE, PageError, Section, write_page
from tests.public_suites import genai_row, write_genai

MODULE = '''
from typing import NamedTuple

Size = tuple[int, int]
"""(height, width) in pixels."""

class Scale(NamedTuple):
    """A change of size."""

    factor: float = 2.0
    """How many times as large, or None | nothing."""
    size: Size = (1, 1)

    def apply(self, pixels: int) -> int:
        """Return the new number of pixels.

        Args:
            pixels: Of one side.
        """

    def _rest(self): ...

def scale(image: bytes, *, by: Scale, name: str = "bicubic") -> bytes:
    """Return an image
    at another size.

    Args:
        image: The image,
            encoded.
        by: The change.
        name: The filter.

    Returns:
        image: encoded, as
        it was.

    Raises:
        ValueError: The image is broken.

    Examples:
        >>> scale(b"", by=Scale(2.0))
        b''
    """
'''
SECTIONS = (Section("Images", ("scale", "editloop.scaling:Scale", "editloop.scaling:Size")),)


@pytest.fixture
def top(tmp_path: Path) -> Path:
    (tmp_path / "editloop").mkdir()
    (tmp_path / "editloop" / "__init__.py").write_text('_MODULES = {"scale": "editloop.scaling"}\n')
    (tmp_path / "editloop" / "scaling.py").write_text(MODULE)
    return tmp_path


@pytest.mark.parametrize(
    "line",
    [
        "- Images: [`scale`](#editloopscale), [`Scale`](#scale), [`Size`](#size)",
        'editloop.scale(image: bytes, *, by: Scale, name: str = "bicubic") -> bytes',
        "- `image` (`bytes`): The image, encoded.",
        "- `by` ([`Scale`](#scale)): The change.",
        "- `bytes`: image: encoded, as it was.",
        "- `ValueError`: The image is broken.",
        "```pycon\n>>> scale(b\"\", by=Scale(2.0))\nb''\n```",
        "from editloop.scaling import Scale\n\nclass Scale(NamedTuple)",
        "| `factor` | `float` | `2.0` | How many times as large, or None \\| nothing. |",
        "| `size` | [`Size`](#size) | `(1, 1)` |  |",
        "#### `Scale.apply`",
        "Size = tuple[int, int]\n```\n\n(height, width) in pixels.",
    ],
)
def test_the_page_has(line: str, top: Path) -> None:
    page = write_page(top, SECTIONS)
    assert line in page
    assert "_rest" not in page
    assert "\n\n\n" not in page


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ((Section("Images", ("editloop.scaling:Scale",)),), "in no section of tests/api_reference.py: scale"),
        ((Section("Images", ("scale", "editloop.scaling:Zoom")),), "editloop.scaling:Zoom: no such function"),
        ((Section("Images", ("scale", "zoom")),), "zoom: no such function"),
    ],
)
def test_a_name_that_is_not_where_it_should_be_is_told(sections: tuple[Section, ...], words: str, top: Path) -> None:
    with pytest.raises(PageError, match=re.escape(words)):
        write_page(top, sections)


def test_the_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text() == write_page(), "run make generate"


FUNCTIONS = tuple(name for name in editloop.__all__ if name.islower())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the examples read."""
    from editloop.studies.world.scenes import write_edits

    folder = tmp_path_factory.mktemp("examples")
    write_edits(folder / "edits", 3, 0)
    (folder / "genai-bench").mkdir()
    rows = [genai_row("leftvote", 40 + number, 90 - number, source=number) for number in range(4)]
    write_genai(folder / "genai-bench" / "suite.parquet", rows)
    votes = {"a": "left", "b": "right", "c": "right"}
    labels = [json.dumps({"key": key, "label": vote}) + "\n" for key, vote in votes.items()]
    (folder / "labels.jsonl").write_text("".join(labels))
    return folder


class Results(doctest.OutputChecker):
    """Compares results; what a line without one prints, such as a progress bar, does not matter."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


@pytest.mark.slow("opens models")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_examples_of_the_public_functions_do_what_they_say(
    name: str, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(prepared)
    example = doctest.DocTestParser().get_doctest(getattr(editloop, name).__doc__, {}, name, None, None)
    assert example.examples
    printed: list[str] = []
    doctest.DocTestRunner(Results()).run(example, out=printed.append)
    assert not printed, "".join(printed)

"""Every reader of files from outside, given any bytes and any JSON, returns or says in plain lines what is wrong."""

import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editloop.errors import EditLoopError
from tests.hostile_readers import FURTHER_READERS, READERS, Lines, Reader, file_content
from tests.json_changes import ODD_VALUES, deep_value, places_in, with_value

ALL = READERS | FURTHER_READERS
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=8,
)
"""Any JSON."""
odd_values = st.sampled_from([*ODD_VALUES, deep_value(), deep_value(240)])


def changed(valid: Any) -> st.SearchStrategy[Any]:
    """A valid document with one value replaced; a valid file of bytes with some bytes replaced, or cut off."""
    if isinstance(valid, bytes):
        cuts = st.tuples(st.integers(0, len(valid)), st.integers(0, 12), st.binary(max_size=12))
        return cuts.map(lambda cut: valid[: cut[0]] + cut[2] + valid[cut[0] + cut[1] :])
    rewrap = Lines if isinstance(valid, Lines) else lambda value: value
    document = list(valid) if isinstance(valid, Lines) else valid
    replaced = st.tuples(st.sampled_from(places_in(document)), anything | odd_values)
    return replaced.map(lambda change: with_value(document, *change)).map(
        lambda value: rewrap(value) if isinstance(value, list) else value
    )


def contents(reader: Reader) -> st.SearchStrategy[bytes]:
    free = st.binary(max_size=200) | (anything | odd_values).map(file_content)
    return (
        free
        if reader.valid is None
        else free | changed(reader.valid).map(file_content) | changed(reader.valid).map(file_content)
    )


@pytest.fixture
def planted(tmp_path: Path) -> Callable[[Reader], Path]:
    def plant(reader: Reader) -> Path:
        path = tmp_path / "input" / reader.file
        path.parent.mkdir(parents=True)
        reader.beside(path.parent)
        return path

    return plant


@pytest.mark.parametrize("name", ALL)
def test_any_file_gives_a_result_or_a_plain_refusal(name: str, planted: Callable[[Reader], Path]) -> None:
    reader = ALL[name]
    path = planted(reader)

    @settings(
        max_examples=reader.examples,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(contents(reader))
    def holds(content: bytes) -> None:
        path.write_bytes(content)
        try:
            reader.read(path)
        except EditLoopError as error:
            message = str(error)
            assert message.strip()
            assert len(message) < 8000
            assert not {"Cc", "Cs"} & set(map(unicodedata.category, message.replace("\n", ""))), message

    holds()


@pytest.mark.parametrize("name", [name for name, reader in ALL.items() if reader.valid is not None])
def test_what_the_properties_change_is_an_honest_file(name: str, planted: Callable[[Reader], Path]) -> None:
    reader = ALL[name]
    path = planted(reader)
    path.write_bytes(file_content(reader.valid))
    if reader.lacks:
        with pytest.raises(EditLoopError, match=reader.lacks):
            reader.read(path)
    else:
        reader.read(path)

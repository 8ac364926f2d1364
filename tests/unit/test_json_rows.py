"""Rows of JSON files of any length: the same from a list and from lines, wherever a chunk ends, and faults by place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.data import json_rows
from editloop.data.json_rows import read_json_rows
from editloop.errors import EditLoopError

OBJECTS = st.dictionaries(
    st.text(max_size=4), st.text(max_size=8) | st.lists(st.text(alphabet='[]{},"\\', max_size=4), max_size=3)
)


@given(
    rows=st.lists(OBJECTS, max_size=6),
    chunk=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
    start=st.text(json_rows.SPACE),
)
def test_a_list_is_read_as_the_json_library_reads_it_wherever_a_chunk_ends(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], chunk: int, indent: int | None, start: str
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.json"
    path.write_text(start + json.dumps(rows, indent=indent, ensure_ascii=False), encoding="utf-8-sig")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_rows, "CHUNK", chunk)
        read = list(read_json_rows(path))
    assert [row for _, row in read] == json.loads(path.read_text(encoding="utf-8-sig"))
    assert [place for place, _ in read] == [f"row {number}" for number in range(1, len(rows) + 1)]


def test_lines_are_rows_and_faults_name_theirs(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n[1]\n"text"\n{"a": \n\xff\n{"a": "\xe2\x80\xa8"}')
    read = list(read_json_rows(path))
    assert [place for place, _ in read] == ["line 1", "line 3", "line 4", "line 5", "line 6", "line 7"]
    assert read[0][1] == {"a": 1}
    assert read[5][1] == {"a": "\u2028"}
    assert all(isinstance(row, str) and "not a JSON object" in row for _, row in read[1:5])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"a": 1}, {"a"', "row 2: not JSON"),
        ('[{"a": 1}', r"row 1: not JSON \(cut off\)"),
        ('[{"a": 1}\n', "ends after row 1, inside the list"),
        ('[{"a": 1} {"a": 2}]', "after row 1: neither a comma nor the end of the list"),
        ("[" * 100_000, "row 1: not JSON"),
    ],
)
def test_a_list_that_is_broken_or_cut_off_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(EditLoopError, match=words) as caught:
        list(read_json_rows(tmp_path / "rows.json"))
    assert "\n" not in str(caught.value)


def test_values_of_a_list_that_are_no_objects_are_faults(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[1, {"a": 1}, "x", null]')
    read = [row for _, row in read_json_rows(tmp_path / "rows.json")]
    assert read == ["not a JSON object", {"a": 1}, "not a JSON object", "not a JSON object"]


def test_a_row_without_an_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "LONGEST_ROW", 2000)
    monkeypatch.setattr(json_rows, "CHUNK", 500)
    for name, begin in (("rows.json", '[{"a": "'), ("rows.jsonl", '{"a": "')):
        (tmp_path / name).write_text(begin + "x" * 10_000)
        with pytest.raises(EditLoopError, match=r"row 1: not JSON|:1: more than"):
            list(read_json_rows(tmp_path / name))


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_bytes(b"[\xff]")
    with pytest.raises(EditLoopError, match="not UTF-8"):
        list(read_json_rows(tmp_path / "rows.json"))
    with pytest.raises(EditLoopError, match="cannot be read"):
        list(read_json_rows(tmp_path / "none.json"))

"""Files that people write: refused in one line, quickly and in bounded memory, whatever they are."""

import os
from pathlib import Path

import pytest

from editloop.errors import EditLoopError
from editloop.settings_file import parse_json, parse_yaml, read_yaml
from editloop.text_file import LARGEST_TEXT, read_text_file


def nested_aliases(row: str) -> str:
    """A YAML text of nine lines that stands for a billion values; `row` says how a line uses the one before."""
    lines = [
        f"{name}: &{name} {row.format(','.join([f'*{last}'] * 9))}"
        for last, name in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    return "\n".join(["a: &a {k: v}", *lines])


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.timeout(10)
def test_what_is_no_regular_file_is_never_read(tmp_path: Path, fifo: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in ((fifo, "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path / "link", "a device")):
        with pytest.raises(EditLoopError, match=f"^{path}: {kind}. Give a text file.$"):
            read_text_file(path)
    with pytest.raises(EditLoopError, match="a folder"):
        read_text_file(tmp_path)


@pytest.mark.timeout(10)
def test_a_huge_file_is_refused_before_it_is_in_memory(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**40)
    with pytest.raises(EditLoopError, match="larger than 4096 KiB"):
        read_text_file(tmp_path / "huge")
    (tmp_path / "full").write_text("x" * LARGEST_TEXT)
    assert len(read_text_file(tmp_path / "full")) == LARGEST_TEXT


def test_text_is_utf_8_with_or_without_a_mark(tmp_path: Path) -> None:
    (tmp_path / "marked").write_bytes("\ufeffKüche\t\r\n".encode())
    assert read_text_file(tmp_path / "marked") == "Küche\t\r\n"
    for data, fault in (
        (b"fine\nK\xfcche", "line 2 is not UTF-8 (byte 0xfc)"),
        ("wide".encode("utf-16"), "line 1 is not UTF-8"),
        (b"a\n\x1b[31mred", "line 2 has the control character U+001B"),
        (b"a\0b", "control character U+0000"),
    ):
        (tmp_path / "other").write_bytes(data)
        with pytest.raises(EditLoopError) as refused:
            read_text_file(tmp_path / "other")
        assert fault in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (nested_aliases("[{}]"), "aliases that stand for more than"),
        (nested_aliases("{{<<: [{}]}}"), "aliases that stand for more than"),
        ("a: &a [*a]", "aliases that stand for more than"),
        ("[" * 5000, "more than 32 levels"),
        ("\n".join(" " * depth + "a:" for depth in range(5000)), "more than 32 levels"),
        (f"a: {'9' * 5000}", "cannot be read as YAML"),
        ("a: 2026-99-99", "month must be in 1..12"),
        ("a: !!python/object/apply:os.system [id]", "cannot be read as YAML"),
    ],
)
def test_yaml_that_would_take_memory_or_stack_is_one_line(text: str, fault: str) -> None:
    with pytest.raises(EditLoopError, match=fault) as refused:
        parse_yaml(text, "mine.yaml")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_aliases_of_an_honest_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: &a {k: v}\nb: {<<: *a, x: [*a, *a]}\n")
    assert read_yaml(tmp_path / "mine.yaml")["b"] == {"k": "v", "x": [{"k": "v"}, {"k": "v"}]}


def test_json_of_any_depth_is_one_line() -> None:
    with pytest.raises(EditLoopError, match="too many levels"):
        parse_json("[" * 100_000, "mine")


def test_a_message_shows_escape_codes_and_does_not_send_them() -> None:
    assert str(EditLoopError("name=\x1b[31mred\x07: no\nsecond\tline")) == "name=\\x1b[31mred\\x07: no\nsecond\\tline"

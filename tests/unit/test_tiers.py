"""The suite's own rules: a tier's marker says why, and what files are recorded is what files there are."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import tiers

TESTS = Path(__file__).parents[1]


def markers(source: str) -> list[tuple[str, bool]]:
    """Markers `slow` and `extended` of a file, and whether each is called with a text."""
    tree = ast.parse(source)
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return [
        (node.attr, bool((call := calls.get(id(node))) and call.args and ast.literal_eval(call.args[0]).strip()))
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("slow", "extended")
    ]


def test_every_tier_has_its_reason() -> None:
    for path in TESTS.rglob("test_*.py"):
        for name, has_reason in markers(path.read_text()):
            assert has_reason, f"{path}: @pytest.mark.{name} needs its reason"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("@pytest.mark.slow\ndef test(): ...", [("slow", False)]),
        ("@pytest.mark.slow('')\ndef test(): ...", [("slow", False)]),
        ("@pytest.mark.extended('eight kills')\ndef test(): ...", [("extended", True)]),
    ],
)
def test_a_marker_without_a_reason_is_seen(source: str, expected: list[tuple[str, bool]]) -> None:
    assert markers(source) == expected


def test_files_begin_with_the_longest_and_new_ones_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "RECORD", tmp_path / "seconds.json")
    tiers.RECORD.write_text('{"files": {"short.py": 1.0, "long.py": 9.0}, "slowest": {}}')
    items = [SimpleNamespace(nodeid=f"{name}.py::{test}") for name in ("short", "long", "new") for test in ("b", "a")]
    tiers.pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    names = [item.nodeid for item in items]
    assert names.index("long.py::b") < names.index("long.py::a") < names.index("short.py::b")
    assert names.index("new.py::b") < names.index("short.py::b")


def test_recorded_seconds_fill_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "RECORD", tmp_path / "seconds.json")
    monkeypatch.setattr(tiers, "PAGE", tmp_path / "tests.md")
    tiers.PAGE.write_text(f"# The tests\n{tiers.TABLE}| old |\n")
    recorder = tiers.Recorder()
    for when, duration in (("setup", 2.0), ("call", 3.0)):
        report = SimpleNamespace(nodeid="tests/unit/test_a.py::test_one", when=when, duration=duration)
        recorder.pytest_runtest_logreport(report)  # type: ignore[arg-type]
    recorder.pytest_sessionfinish(None)  # type: ignore[arg-type]
    assert "| 5 | `unit/test_a.py::test_one` |" in tiers.PAGE.read_text()
    assert "old" not in tiers.PAGE.read_text()
    assert '"tests/unit/test_a.py": 5.0' in tiers.RECORD.read_text()

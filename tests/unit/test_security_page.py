"""SECURITY.md: every threat names a guard and tests, and the tests exist."""

import ast
import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def threats() -> list[tuple[str, str, str]]:
    """The rows of the table of threats: threat, guard, tests. Headings within the table are left out."""
    section = (TOP / "SECURITY.md").read_text().partition("## Threats, guards and tests")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in section.splitlines() if line.startswith("| ")]
    assert all(len(row) == 3 for row in rows), "a row has three cells"
    return [(threat, guard, tests) for threat, guard, tests in rows[1:] if not threat.startswith("**")]


THREATS = threats()


def test_the_table_is_read() -> None:
    assert len(THREATS) > 35
    assert len({threat for threat, _, _ in THREATS}) == len(THREATS)


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0][:40])
def test_every_row_names_a_guard_and_tests_that_exist(row: tuple[str, str, str]) -> None:
    threat, guard, tests = row
    assert guard, threat
    named = TEST.findall(tests)
    assert named, f"{threat}: no test"
    assert not TEST.sub("", tests).strip(" ,"), f"{threat}: {tests}"
    for path, function in named:
        tree = ast.parse((TOP / path).read_text())
        defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert any(name.startswith("test_") for name in defined), path
        assert not function or function in defined, f"{path} has no {function}"


def test_every_test_that_the_page_names_elsewhere_exists() -> None:
    for path, _ in TEST.findall((TOP / "SECURITY.md").read_text()):
        assert (TOP / path).is_file(), path

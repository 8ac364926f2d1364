"""pytest's plug-in of this project: which files of tests begin first.

Files begin in the order of their recorded seconds, the longest first, so that both workers end at about the same time;
`pytest --record-seconds` writes the record anew, and the page docs/tests.md from it.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

RECORD = Path(__file__).with_name("seconds.json")
"""Seconds of each test file and of the slowest tests, as recorded last."""
PAGE = Path(__file__).parents[1] / "docs" / "tests.md"
TABLE = "<!-- the 20 slowest tests: written by pytest --record-seconds -->\n"
SLOWEST = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record-seconds", action="store_true", help="write tests/seconds.json and docs/tests.md")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--record-seconds") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(), "recorded-seconds")


@pytest.hookimpl(tryfirst=True)  # a plug-in that shuffles comes after
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    seconds: dict[str, float] = json.loads(RECORD.read_text())["files"] if RECORD.is_file() else {}
    unknown = max(seconds.values(), default=0.0)
    items.sort(key=lambda item: -seconds.get(file_of(item.nodeid), unknown))


def file_of(nodeid: str) -> str:
    """The test file of a test's id, relative to the project."""
    return nodeid.split("::")[0]


class Recorder:
    """Adds up the seconds of set-up, call and teardown of all tests, in the process that all workers report to."""

    def __init__(self) -> None:
        self.tests: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests[report.nodeid] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        files: dict[str, float] = defaultdict(float)
        for nodeid, seconds in self.tests.items():
            files[file_of(nodeid)] += seconds
        slowest = sorted(self.tests.items(), key=lambda item: -item[1])[:SLOWEST]
        record: dict[str, Any] = {
            "files": {name: round(seconds, 1) for name, seconds in sorted(files.items())},
            "slowest": {nodeid: round(seconds, 1) for nodeid, seconds in slowest},
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        PAGE.write_text(PAGE.read_text().partition(TABLE)[0] + slowest_table(record["slowest"]))


def slowest_table(slowest: dict[str, float]) -> str:
    """The table of the slowest tests for docs/tests.md, from seconds by test id."""
    lines = ["| seconds | test |", "|---|---|"]
    lines += [f"| {seconds:.0f} | `{nodeid.removeprefix('tests/')}` |" for nodeid, seconds in slowest.items()]
    return TABLE + "\n" + "\n".join(lines) + "\n"

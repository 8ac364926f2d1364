"""pytest's plug-in for an environment without torch: a test that needs it is skipped, every other failure stays one.

    python -m pytest -p tests.without_torch tests/unit

No list says which tests need torch. A file that cannot be imported without it is skipped as a whole, and so is a test
that comes to such an import while it runs. The marker `needs_torch` is for tests of commands and of other processes,
where no failed import is seen.
"""

import tomllib
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
CONTRACT = "What experts see, what starts a training and every settings module need no torch"
"""The import contract that names the packages that much of EditLoop does without."""


def heavy_packages() -> frozenset[str]:
    """The import contract's forbidden packages: torch, and the packages that are of no use without it."""
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = (contract["forbidden_modules"] for contract in contracts if contract["name"] == CONTRACT)
    return frozenset(forbidden)


HEAVY = heavy_packages()


def missing_package(error: BaseException | None) -> str | None:
    """Return the heavy package whose failed import led to an error, or None where it was something else.

    Args:
        error: The error, with the errors that it was raised from or beside.
    """
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) in HEAVY:
            return package
        error = error.__cause__ or error.__context__
    return None


def _skip(report: Any, path: Path, package: str) -> None:
    report.outcome = "skipped"
    report.longrepr = (str(path), 0, f"Skipped: needs {package}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("needs_torch"):
            item.add_marker(pytest.mark.skip(reason="needs torch"))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    call = getattr(report, "call", None)  # pytest leaves it there for whoever wants the exception
    if call and call.excinfo and (package := missing_package(call.excinfo.value)):
        _skip(report, collector.path, package)
        del report.call  # type: ignore[attr-defined]
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.excinfo and (package := missing_package(call.excinfo.value)):
        _skip(report, item.path, package)
    return report

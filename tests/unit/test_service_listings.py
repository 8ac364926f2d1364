"""Every list that a service gives out in pages is read to its end, or says how much of it is wanted."""

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("editloop", "infra", "annotation", "components", "pipelines")
ROOT = Path(__file__).parents[2]


def searches(source: str) -> Iterator[ast.Call]:
    """The calls of MlflowClient's searches, each of which returns one page."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.startswith("search_"):
            yield node


def reads_one_page(source: str) -> list[int]:
    """Lines of searches that take the first page for the whole list: a thousand runs, or a hundred models."""
    return [call.lineno for call in searches(source) if "max_results" not in [keyword.arg for keyword in call.keywords]]


def test_no_search_of_mlflow_ends_with_its_first_page() -> None:
    faults = [
        f"{path.relative_to(ROOT)}:{line}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line in reads_one_page(path.read_text())
    ]
    assert not faults, f"read them by `tracking.all_pages`: {', '.join(faults)}"


def test_such_a_search_is_noticed() -> None:
    assert reads_one_page("client().search_registered_models()") == [1]
    assert reads_one_page("api.search_runs([1], query, max_results=1)") == []
    assert reads_one_page("all_pages(api.search_runs, [1], query)") == []

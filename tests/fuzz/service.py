"""Requests to a running reward server, made by schemathesis from the server's own OpenAPI schema, valid and invalid."""

import time
import traceback
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig

from tests.served_judge import ADDRESS, served

EXAMPLES = 50
"""Requests to each operation, valid and invalid ones each, before the next seed."""
UNCHECKED = ("positive_data_acceptance", "negative_data_rejection")
"""A text that the schema takes for a picture need not be one; 422 says so. Query parameters that no operation has are
ignored, as everywhere."""


def ask_server(url: str, headers: dict[str, str], examples: int, *, seed: int | None = None) -> Iterator[str]:
    """Send requests to each operation, and check every answer against the schema. Yields the operation of each.

    Args:
        url: The server's address.
        headers: Headers that every request needs.
        examples: Requests to each operation, valid and invalid ones each.
        seed: Seed of the requests; None for the same ones each time.

    Raises:
        schemathesis.errors.SchemathesisError: An answer is a server error, has a status, a type, a header or a content
            that the schema does not state, or an operation does without the token.
    """
    config = SchemathesisConfig.from_dict({"generation": {"deterministic": seed is None}})
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json", config=config)
    checks = [check for check in CHECKS.get_all() if check.__name__ not in UNCHECKED]
    profile = hypothesis.settings(
        max_examples=examples,
        derandomize=seed is None,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    asked: list[str] = []

    def holds(case: schemathesis.Case) -> None:
        asked.append(case.operation.label)
        response = case.call(headers=headers, timeout=30)
        case.validate_response(response, checks=checks, headers=headers)

    for operation in (result.ok() for result in schema.get_all_operations()):
        for mode in GenerationMode:
            test = profile(hypothesis.given(case=operation.as_strategy(generation_mode=mode))(holds))
            try:
                (test if seed is None else hypothesis.seed(seed)(test))()
            except hypothesis.errors.Unsatisfiable:
                assert mode == GenerationMode.NEGATIVE  # nothing is invalid of a request without parameters
            yield from asked
            asked.clear()


def fuzz_server(seconds: int, folder: Path) -> tuple[int, int]:
    """Send requests to a server of its own for a time; what is wrong is written down.

    Args:
        seconds: How long.
        folder: Folder of the findings.

    Returns:
        The numbers of requests, and of seeds with an answer that is wrong.
    """
    deadline, executions, findings = time.monotonic() + seconds, 0, 0
    with served(folder) as server:
        for seed in count():
            if time.monotonic() > deadline:
                break
            try:
                for _ in ask_server(server.url, ADDRESS, EXAMPLES, seed=seed):
                    executions += 1
            except Exception:
                findings += 1
                (folder / f"finding-{findings}.txt").write_text(f"seed {seed}\n\n{traceback.format_exc()}")
    return executions, findings

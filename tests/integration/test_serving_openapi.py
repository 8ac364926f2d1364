"""The reward server answers as its own OpenAPI schema says, whatever is asked: schemathesis makes the requests."""

from collections import Counter
from pathlib import Path

import httpx

from editloop.certificates import shared_certificates
from tests.fuzz.service import ask_server
from tests.served_judge import ADDRESS, served

EXAMPLES = 10


def test_every_answer_is_one_that_the_schema_states(tmp_path: Path) -> None:
    """Refusals too: none is a server error, has another status or content, and what needs the token says 401."""
    with served(tmp_path) as server:
        asked = Counter(ask_server(server.url, ADDRESS, EXAMPLES))
        schema = httpx.get(f"{server.url}/openapi.json", verify=shared_certificates()).json()
    assert asked.keys() == {
        f"{method.upper()} {path}" for path, operations in schema["paths"].items() for method in operations
    }
    assert min(asked["POST /v1/score"], asked["GET /v1/model"]) >= EXAMPLES
    assert {"401", "408", "413", "415", "422", "429", "503"} <= schema["paths"]["/v1/score"]["post"]["responses"].keys()

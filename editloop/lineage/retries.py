"""Calls that wait for MLflow: a server that is away for a while costs a training nothing but that while."""

import re
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from pydantic import Field

from editloop.environment import EnvironmentSettings

FIRST_SECONDS, MOST_SECONDS = 0.5, 10.0
"""Between two tries: doubled from the first on."""
BUSY = re.compile(r"too many (429|502|503|504) error responses")
"""What a request says that met a gateway without its server; 500 is a server's own fault, and comes again."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class PatienceSettings(EnvironmentSettings):
    """How long a step waits for its services."""

    mlflow_patience: float = Field(900.0, ge=0)
    """Seconds that a step waits for an MLflow that does not answer; 0 = not at all."""


def retry_while_unreachable(
    call: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """What `call` returns, tried again while MLflow is away, for EDITLOOP_MLFLOW_PATIENCE seconds at most.

    A reply can be lost after its request was served, so `call` must be safe to repeat as a whole. Raises what the last
    try raised; what is no matter of the connection is raised at once.
    """
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

    seconds = PatienceSettings().mlflow_patience
    announced = False

    def tell(state: Any) -> None:
        nonlocal announced
        if not announced:
            print(
                f"MLflow does not answer; waiting for it, {seconds:g} s at most (EDITLOOP_MLFLOW_PATIENCE)", flush=True
            )
        announced = True

    trying = Retrying(
        retry=retry_if_exception(is_unreachable),
        stop=stop_after_delay(seconds),
        before_sleep=tell,
        reraise=True,
        wait=wait_exponential(FIRST_SECONDS, max=MOST_SECONDS),
    )
    return trying(call, *arguments, **keywords)


def is_unreachable(error: BaseException) -> bool:
    """Whether an error of MLflow's client says that no server was reached, or only a gateway before it."""
    import requests

    for cause in _causes(error):
        if isinstance(cause, requests.ConnectionError | requests.Timeout):
            return True
        if isinstance(cause, requests.RequestException) and BUSY.search(str(cause)):
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it; MLflow's client wraps what requests raised."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

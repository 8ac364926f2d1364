"""Retries of calls to MLflow: an outage of the server pauses a step instead of failing it."""

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

from pydantic import Field

from editloop.environment import EnvironmentSettings
from editloop.retry import retry_call

BUSY = re.compile(r"too many (429|502|503|504) error responses")
"""Message of a request that met a gateway whose server was away, or a busy server. A 500 is not here: it is the
server's own fault, and a repeated request would fail again."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class PatienceSettings(EnvironmentSettings):
    """How long a step waits for MLflow."""

    mlflow_patience: float = Field(900.0, ge=0)
    """Seconds that a step waits for an MLflow that does not answer; 0 = not at all."""


def retry_while_unreachable(
    call: Callable[Arguments, Result], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Result:
    """Return the result of `call`, repeated while MLflow is unreachable, for up to EDITLOOP_MLFLOW_PATIENCE seconds.

    A reply can be lost after the server acted on the request, so `call` must be safe to repeat as a whole. Errors other
    than those of the connection are raised at once; after the last try its error is raised.

    Args:
        call: The function to call.
        *arguments: Its positional arguments.
        **keywords: Its keyword arguments.
    """
    seconds = PatienceSettings().mlflow_patience
    return retry_call(
        partial(call, *arguments, **keywords),
        is_unreachable,
        seconds=seconds,
        announcement=f"MLflow does not answer; waiting for it, {seconds:g} s at most (EDITLOOP_MLFLOW_PATIENCE)",
        recovery="MLflow answers again",
    )


def is_unreachable(error: BaseException) -> bool:
    """Return whether an error of MLflow's client means that no server, or only a gateway in front of it, was reached.

    Args:
        error: The error; those that caused it are examined too.
    """
    import requests

    for cause in _causes(error):
        if isinstance(cause, requests.ConnectionError | requests.Timeout | requests.exceptions.ChunkedEncodingError):
            return True  # the last of an answer that broke off
        if isinstance(cause, requests.RequestException) and BUSY.search(str(cause)):
            return True
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and those behind it, because MLflow's client wraps the errors of requests."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__

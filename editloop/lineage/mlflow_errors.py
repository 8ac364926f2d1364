"""What MLflow's errors mean to a person: one line with the thing, and how it comes back.

MLflow's client raises one class for everything, from a deleted run to a server that is away. Commands, steps of
pipelines and `reconcile` translate it here, at their boundary; the code between tells errors apart by their codes.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from editloop.addresses import without_secrets
from editloop.errors import EditLoopError
from editloop.lineage.retries import is_unreachable

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

LONGEST_MESSAGE = 300
"""Characters of MLflow's own message that are shown."""
INACTIVE = re.compile(r"The (run|experiment) (\w+) must be in the 'active' state")
MISSING = re.compile(r"not found|does not exist|No Experiment with")
NO_MLFLOW = re.compile(r"not in a valid JSON format|Response body: '\s*<")
"""Answers of a server that is no MLflow: pages for people."""


@contextmanager
def mlflow_errors_in_one_line() -> Iterator[None]:
    """Turn what MLflow's client raises within the block into an EditLoopError of one line.

    Raises:
        EditLoopError: MLflow refused a call, or did not answer.
    """
    try:
        yield
    except Exception as error:
        if (translated := translate_error(error)) is None:
            raise
        raise translated from error


def translate_error(error: BaseException) -> EditLoopError | None:
    """Return what an error of MLflow's client means; None for an error of something else.

    Args:
        error: The error.
    """
    if "mlflow.exceptions" not in sys.modules:  # then nothing asked MLflow, and its import takes a second
        return None
    import requests
    from mlflow.exceptions import MlflowException

    server = server_name()
    is_request = isinstance(error, requests.RequestException) and str(error.request and error.request.url).startswith(
        os.environ.get("MLFLOW_TRACKING_URI", "http")
    )
    if not (is_request or isinstance(error, MlflowException)):
        return None
    if is_unreachable(error):
        return EditLoopError(
            f"{server} does not answer. Start it (`editloop up`, `editloop status`), or correct MLFLOW_TRACKING_URI if "
            "its address changed; then make the same call again."
        )
    if isinstance(error, MlflowException):
        return EditLoopError(f"{server}{_meaning(error)}")
    return EditLoopError(f"{server} refuses a file: {_shortened(str(error))}.")


def deleted_experiment(name: str, experiment_id: str) -> EditLoopError:
    """Return the error that an experiment was deleted, with how it comes back.

    Args:
        name: Name of the experiment.
        experiment_id: Its id.
    """
    return EditLoopError(f"{server_name()}{_deleted('experiment', f'{name} (id {experiment_id})', experiment_id)}")


def server_name() -> str:
    """Return what messages call the server: its address as the variable has it, without a password in it."""
    address = os.environ.get("MLFLOW_TRACKING_URI", "(MLFLOW_TRACKING_URI is not set)")
    return f"MLflow at {without_secrets(address)}"


def _meaning(error: "MlflowException") -> str:
    """Return what an answer of the server means, as the rest of a sentence that begins with the server."""
    message, code = _shortened(str(error.message).removeprefix(f"{error.error_code}: ")), error.error_code
    if match := INACTIVE.search(message):
        kind, identifier = match.groups()
        return _deleted(kind, _with_name(kind, identifier), identifier)
    if NO_MLFLOW.search(message):
        return ": what answers there is no MLflow. Correct MLFLOW_TRACKING_URI."
    if code == "ENDPOINT_NOT_FOUND":
        return f": what answers there is no MLflow, or one of another version ({message}). Correct MLFLOW_TRACKING_URI."
    if code == "UNAUTHENTICATED":
        return " refuses the log-in: correct MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
    if code == "PERMISSION_DENIED":
        account = os.environ.get("MLFLOW_TRACKING_USERNAME", "an account without a name")
        return f" does not allow this to {account} ({message}). Ask who runs it."
    if code == "RESOURCE_DOES_NOT_EXIST" or MISSING.search(message):
        return (
            f" does not have it: {message}. It was removed for good, or MLFLOW_TRACKING_URI names another server than "
            "the one that has it."
        )
    return f" refuses: {message} ({code})."


def _deleted(kind: str, name: str, identifier: str) -> str:
    return f": the {kind} {name} was deleted. Restore it: `mlflow {kind}s restore --{kind}-id {identifier}`."


def _with_name(kind: str, identifier: str) -> str:
    """Return the id of a run or experiment, with its name where MLflow tells it."""
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        if kind == "experiment":
            return f"{MlflowClient().get_experiment(identifier).name} (id {identifier})"
        return f"{MlflowClient().get_run(identifier).info.run_name} (id {identifier})"
    except MlflowException:
        return identifier


def _shortened(message: str) -> str:
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= LONGEST_MESSAGE else f"{line[: LONGEST_MESSAGE - 3]}..."

"""The environment of stages on this machine: a folder's services, dataset repository and model cache."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from editloop.errors import EditLoopError
from editloop.object_storage import is_address
from pipelines.kfp_settings import KfpSettings

CONNECT_SECONDS = 3.0
"""Longest time that an address may take to accept a connection."""


def local_environment(folder: Path) -> dict[str, str]:
    """Return the variables beside those of the services: edits, dataset repository, model cache, checkpoints.

    A variable that is an address in object storage already keeps it.

    Args:
        folder: Folder of a demo or of `editloop up`.
    """
    variables = {
        "EDITLOOP_EDITS": str(folder / "edits"),
        "EDITLOOP_DATASET_REPO": str(folder / "dataset"),
        "EDITLOOP_DATASET_REMOTE": str(folder / "dataset-remote"),
        "EDITLOOP_CACHE": str(folder / "cache"),
        "EDITLOOP_CHECKPOINTS": str(folder / "checkpoints"),
    }
    return {name: value for name, value in variables.items() if not is_address(os.environ.get(name, ""))}


def check_reachable(uri: str) -> None:
    """Check that a server listens at an address, so that a dead one is reported at once, not after MLflow's retries.

    Args:
        uri: MLflow's address. One that is not http or https (a folder, a database) is not checked.

    Raises:
        EditLoopError: Nothing listens there.
    """
    address = urlsplit(uri)
    if address.scheme not in ("http", "https") or not address.hostname:
        return
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname, port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise EditLoopError(
            f"MLFLOW_TRACKING_URI={uri}: nothing answers there ({error}). Start the server, or correct the variable; "
            "`editloop up` starts one here."
        ) from error


@contextmanager
def services_of(out: Path) -> Iterator[None]:
    """Make sure that the environment names services within the block.

    Where MLFLOW_TRACKING_URI is not set, the services are those of the folder. They are started for the block if they
    do not run. After the block the environment is restored. Runs on a cluster need the cluster's MLflow.

    Args:
        out: Folder of a demo or of `editloop up`.

    Raises:
        EditLoopError: The environment names an MLflow that does not answer; or it names none, and the folder has no
            services.
    """
    from editloop.interruption import interrupt_on_termination
    from infra.services import services_status, start_services, stop_services

    home = out.absolute() / "services"
    if KfpSettings().kfp_endpoint and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise EditLoopError(
            "MLFLOW_TRACKING_URI is not set. Runs on the server in EDITLOOP_KFP_ENDPOINT need the MLflow of its steps: "
            "set it, and MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        )
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        check_reachable(uri)
        yield
        return
    if not home.is_dir():
        raise EditLoopError(
            f"MLFLOW_TRACKING_URI is not set, and {out} has no services of its own. Name the folder of a demo or of "
            "`editloop up`, or set the variables that `editloop up` prints."
        )
    were_running = any(status.state == "running" for status in services_status(home))
    before = dict(os.environ)
    with interrupt_on_termination():
        try:
            os.environ.update(start_services(home).environment | local_environment(out.absolute()))
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            if not were_running:
                stop_services(home)

"""What stages find around them on this machine: a folder's services, dataset repository and model cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from editloop.errors import EditLoopError


def local_environment(folder: Path) -> dict[str, str]:
    """What stages find in the environment beside the services: dataset repository and remote, models, checkpoints."""
    return {
        "EDITLOOP_DATASET_REPO": str(folder / "dataset"),
        "EDITLOOP_DATASET_REMOTE": str(folder / "dataset-remote"),
        "EDITLOOP_CACHE": str(folder / "cache"),
        "EDITLOOP_CHECKPOINTS": str(folder / "checkpoints"),
    }


@contextmanager
def services_of(out: Path) -> Iterator[None]:
    """Where the environment names no MLflow: the services of the folder, started for the while if they do not run."""
    from editloop.interruption import interrupt_on_termination
    from infra.services import services_status, start_services, stop_services

    home = out.absolute() / "services"
    if os.environ.get("MLFLOW_TRACKING_URI"):
        yield
        return
    if not home.is_dir():
        raise EditLoopError(
            f"MLFLOW_TRACKING_URI is not set, and {out} has no services of its own. Name the folder of a demo or of "
            "`editloop up`, or set the variables that `editloop up` prints."
        )
    were_running = any(status.state == "running" for status in services_status(home))
    with interrupt_on_termination():
        try:
            os.environ.update(start_services(home).environment | local_environment(out.absolute()))
            yield
        finally:
            if not were_running:
                stop_services(home)

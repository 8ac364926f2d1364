"""What stages find around them on this machine: a folder's services, dataset repository and model cache."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import EditLoopError


def surroundings(folder: Path) -> dict[str, str]:
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
    from infra.interruption import interrupted_by_any_ending
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
    ran = any(one.state == "running" for one in services_status(home))
    with interrupted_by_any_ending():
        try:
            os.environ.update(start_services(home).environment | surroundings(out.absolute()))
            yield
        finally:
            if not ran:
                stop_services(home)

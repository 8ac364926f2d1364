"""Checks for `editloop doctor`: whether this machine has what the loop needs."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from editloop.addresses import without_secrets
from editloop.datasets.repository_check import check_dataset_repository
from editloop.datasets.settings import DatasetSettings
from editloop.errors import EditLoopError
from infra.service_programs import label_studio_command
from infra.services import services_status
from infra.settings import LocalServiceSettings

PYTHONS = ((3, 11), (3, 12), (3, 13))
"""Versions of Python that pyproject.toml's requires-python allows."""
SMALLEST_DISK = 3
"""GiB that a demo's data, models and databases may take."""


@dataclass(frozen=True)
class Check:
    """One line of `editloop doctor`."""

    name: str
    ok: bool
    state: str
    """What the check saw, such as a version or a path."""
    advice: str = ""
    """What to do where the check is not ok."""

    def __post_init__(self) -> None:
        """Hide the secrets of addresses."""
        object.__setattr__(self, "state", without_secrets(self.state))


def check_machine(home: Path) -> list[Check]:
    """Return the checks of this machine. What is missing is reported by a check that is not ok, not by an error.

    Args:
        home: Folder of the services, whose disk is checked. It need not exist.
    """
    try:
        label_studio = str(label_studio_command(LocalServiceSettings()))
    except EditLoopError:
        label_studio = ""
    folder = next(parent for parent in (home.resolve(), *home.resolve().parents) if parent.is_dir())
    disk, memory = shutil.disk_usage(folder).free / 2**30, psutil.virtual_memory().available / 2**30
    checks = [
        Check("python", sys.version_info[:2] in PYTHONS, sys.version.split()[0], "Use Python 3.11, 3.12 or 3.13."),
        *(
            Check(program, bool(path := _program(program)), path or "missing", f"Install {program}: run `make setup`.")
            for program in ("git", "dvc", "mlflow", "deepspeed")
        ),
        Check("label-studio", bool(label_studio), label_studio or "missing", "Run `make setup`."),
        Check("disk", disk >= SMALLEST_DISK, f"{disk:.1f} GB free", "Free 3 GB, or choose another --out."),
        Check("memory", memory >= 6, f"{memory:.1f} GB free", "The loop may use 6 GB: close something."),
    ]
    settings = DatasetSettings()
    repository = settings.dataset_repo or str(home.parent / "dataset")
    if settings.dataset_repo or Path(repository).exists():
        checks.append(repository_check(repository, settings.dataset_remote))
    for status in services_status(home):
        state = f"{status.state}, {status.service.url}"
        advice = f"See {status.service.log}, then `editloop down` and `editloop up`."
        checks.append(Check(f"service {status.service.name}", status.state != "not answering", state, advice))
    return checks


def repository_check(repository: str, remote: str | None) -> Check:
    """Check that the dataset repository will take a version.

    Args:
        repository: Folder or git address.
        remote: The DVC remote; None where it is not set.
    """
    try:
        check_dataset_repository(repository, remote)
    except EditLoopError as error:
        advice = "Correct EDITLOOP_DATASET_REPO or EDITLOOP_DATASET_REMOTE, or give their credentials to git."
        return Check("dataset repository", False, " ".join(str(error).split()), advice)
    return Check("dataset repository", True, repository)


def _program(name: str) -> str | None:
    beside = Path(sys.prefix) / "bin" / name
    return str(beside) if beside.is_file() else shutil.which(name)

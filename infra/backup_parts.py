"""What a back-up is made of, and where each part is."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from editloop.object_storage import is_address
from infra.service_programs import DATABASES

DATABASE_FILES = tuple(f"{name}/{file}" for name in ("mlflow", "label-studio") for file in DATABASES[name])
"""Databases below `services`, those that refer to others first."""
SECRET_FILES = ("credentials.json", "annotators.json", "signing-key.pem", "label-studio/.env")
"""Files below `services` with log-ins, tokens and private keys."""
BUNDLE = "dataset.bundle"
"""The dataset repository's history."""
SERVICES, WORK, STORES, SECRETS = "services", "work", "stores", "secrets"
"""Beginnings of a back-up's paths: files of the services, of the folder around them, of object storage; log-ins."""
NOT_SERVICES = (
    *DATABASE_FILES,
    *(f"{file}-*" for file in DATABASE_FILES),
    *SECRET_FILES,
    *("*.log", "lock", ".*", "mlflow-auth.ini", "label-studio/export/*", "label-studio/test_data/*"),
)
"""Files of the services that are dumped, secret, or made again at the next start."""
NOT_WORK = ("services/*", "dataset/*", "cache/*", "checkpoints/*", "logs/*", "workspace/*", ".*", "*.lock")
"""Files of the folder that are in other parts, or can be fetched or made again."""
STORE_VARIABLES = {
    "mlflow": "MLFLOW_ARTIFACTS_DESTINATION",
    "pictures": "EDITLOOP_PICTURES",
    "dataset-remote": "EDITLOOP_DATASET_REMOTE",
    "objects": "EDITLOOP_OBJECTS",
    "edits": "EDITLOOP_EDITS",
}
"""Variables that name places in object storage, by part. Checkpoints are left out: trainings make them again."""
LABEL_STUDIO_UPLOADS = "label-studio"
"""Folder of people's uploads in Label Studio's bucket, as infra/k8s/base/label-studio.yaml has it."""


@dataclass(frozen=True)
class Part:
    """Files that lie below one place."""

    name: str
    """Beginning of their paths in a back-up."""
    location: str
    """Folder, or s3://BUCKET/PREFIX."""
    skip: Callable[[str], bool] = lambda name: False
    """Whether a file is left out, by its name."""


def service_parts(folder: Path) -> list[Part]:
    """Return the parts of a folder of `editloop up`, beside its databases, repository and secrets.

    Args:
        folder: The folder.
    """
    return [
        Part(SERVICES, str(folder / "services"), lambda name: _matches(name, NOT_SERVICES)),
        Part(WORK, str(folder), lambda name: _matches(name, NOT_WORK)),
        *store_parts({name: value for name, value in os.environ.items() if name != "MLFLOW_ARTIFACTS_DESTINATION"}),
    ]


def store_parts(variables: Mapping[str, str]) -> list[Part]:
    """Return the parts that lie in object storage.

    Args:
        variables: The environment, by name.
    """
    locations = {part: variables.get(variable, "").rstrip("/") for part, variable in STORE_VARIABLES.items()}
    if bucket := variables.get("STORAGE_AWS_BUCKET_NAME"):
        locations["label-studio"] = f"s3://{bucket}/{LABEL_STUDIO_UPLOADS}"
    return [Part(f"{STORES}/{name}", location) for name, location in locations.items() if is_address(location)]


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)

"""The registry: complete model folders as versions of a name in MLflow, found by alias, number or content."""

import tempfile
from pathlib import Path
from typing import Any

from infra.content import read_manifest
from infra.errors import EditLoopError
from infra.tracking import TrackingSettings, client

CHAMPION, CHALLENGER = "champion", "challenger"


def register_model(name: str, folder: Path, run_id: str, tags: dict[str, str]) -> str:
    """Put a complete folder into the registry as a version of `name`; the same content again is the same version."""
    from mlflow.exceptions import MlflowException

    api = client()
    sha256 = str(read_manifest(folder, check=True)["sha256"])
    try:
        api.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = version_of_content(name, sha256)
    if known is not None:
        return str(known.version)
    api.log_artifacts(run_id, str(folder), "model")
    source = f"{api.get_run(run_id).info.artifact_uri}/model"
    version = api.create_model_version(name, source, run_id, tags=tags | {"editloop.sha256": sha256})
    return str(version.version)


def version_of_content(name: str, sha256: str) -> Any | None:
    """The registered version of `name` whose folder has this sha256; None where there is none."""
    known = client().search_model_versions(f"name = '{name}' and tags.`editloop.sha256` = '{sha256}'")
    return min(known, key=lambda version: int(version.version), default=None)


def set_alias(name: str, alias: str, version: str) -> None:
    """Point an alias of a registered model at a version."""
    client().set_registered_model_alias(name, alias, version)


def find_version(model: str) -> Any | None:
    """The registered version behind `models:/NAME@ALIAS` or `models:/NAME/VERSION`; None where there is none."""
    from mlflow.exceptions import MlflowException

    name, alias, number = parse_model(model)
    try:
        api = client()
        return api.get_model_version_by_alias(name, alias) if alias else api.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def parse_model(model: str) -> tuple[str, str | None, str | None]:
    """(name, alias, version) of a model's address, one of the last two None."""
    rest = model.removeprefix("models:/")
    name, at, alias = rest.partition("@")
    if at and name and alias:
        return name, alias, None
    name, slash, number = rest.partition("/")
    if rest == model or not (name and slash and number.isdigit()):
        raise EditLoopError(f"{model}: not a model's address; write models:/NAME@ALIAS or models:/NAME/VERSION.")
    return name, None, number


def resolve_model(model: str) -> Path | None:
    """The folder of a registered model, fetched into the cache and checked; None where the alias points nowhere."""
    version = find_version(model)
    return None if version is None else fetch_version(version)


def fetch_version(version: Any) -> Path:
    """The folder of a registered version. Its content is compared with the sha256 in the registry."""
    import mlflow

    sha256 = version.tags.get("editloop.sha256")
    if not sha256:
        raise EditLoopError(f"{version.name} version {version.version} has no tag editloop.sha256; register it again.")
    target = TrackingSettings().cache / "models" / sha256
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{sha256}.") as temporary:
            address = f"models:/{version.name}/{version.version}"
            folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=temporary))
            if read_manifest(folder, check=True)["sha256"] != sha256:
                raise EditLoopError(f"{address}: its files are not those that were registered ({sha256}).")
            if not target.exists():
                folder.rename(target)
    read_manifest(target, check=True)
    return target


def registered_facts(name: str, version: str) -> dict[str, Any]:
    """What the registry knows of a version: {"name", "version", "run_id", "tags"}."""
    found = client().get_model_version(name, version)
    return {"name": name, "version": str(found.version), "run_id": found.run_id, "tags": dict(found.tags)}

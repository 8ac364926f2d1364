"""The model registry: complete, signed model folders as MLflow model versions, looked up by alias, number or content.

The experiment `editloop-registry` holds one run for each move of an alias: who moved it, when and on what evidence.
`editloop.lineage.promotion` writes these records.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.content import MANIFEST, read_manifest, sha256_file
from editloop.errors import EditLoopError
from editloop.lineage.retries import is_unreachable
from editloop.lineage.signing import SignatureError, sign_folder, verify_folder
from editloop.lineage.tracking import TrackingSettings, all_pages, client, find_experiment, quoted
from editloop.text_file import whole_number

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

LOG = logging.getLogger(__name__)
CHAMPION, CHALLENGER = "champion", "challenger"
RECORDS = "editloop-registry"
"""Experiment that holds the promotion records."""
SIGNATURE = ".sigstore.json"
"""Suffix of a signature's name after the name of its model folder. Both are artifacts of one run."""
EVIDENCE = ("benchmark_sha256", "evaluation_sha256", "verdict_sha256")
"""Tags of a version (after "editloop.") with the sha256 of what its gate decided on."""
TAINTED = "editloop.tainted"
"""Tag of a version that learnt from data that was withdrawn since. Its text says what was withdrawn, and when."""
PREFIX = "editloop.registry."


@dataclass(frozen=True, kw_only=True)
class PromotionRequest:
    """A move of an alias that a caller intends."""

    action: str
    """promote, rollback or by hand. By hand: the alias was found moved in MLflow, without a record."""
    model: str
    version: str
    """Where the alias points after the move; empty where it was removed by hand."""
    alias: str = CHAMPION
    actor: str
    reason: str
    previous: str
    """Where the alias pointed before; empty where there was none."""
    verdict: str = ""
    """The gate's verdict on the version at that time; empty for none."""
    evidence: dict[str, str] = field(default_factory=dict)
    """sha256 by its name in EVIDENCE; empty where the alias was moved without evidence."""


@dataclass(frozen=True, kw_only=True)
class Promotion(PromotionRequest):
    """A record: who moved an alias of a model, when, why and on what evidence."""

    number: int
    """1, 2, ... in the model's history; unique within a model."""
    at: str
    """UTC, ISO 8601."""
    run_id: str
    """The MLflow run that is the record."""


@contextmanager
def tolerate_error(code: str) -> Iterator[None]:
    """Go on after the block where MLflow refuses a call in it with this error code.

    Args:
        code: MLflow's name of the error, such as RESOURCE_DOES_NOT_EXIST.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != code:
            raise


def register_model(
    name: str, folder: Path, run_id: str, tags: dict[str, str], evidence: dict[str, str] | None = None
) -> str:
    """Sign a complete folder and add it to the registry, and return the number of its version.

    Content that is registered and signed already keeps its version and its `tags`. Its `evidence` is set again, so that
    the version shows the latest measurement.

    Args:
        name: Name in the registry; created where it is new.
        folder: The model folder.
        run_id: The MLflow run that made it. The files become artifacts of that run.
        tags: Tags of a new version.
        evidence: Tags to set on a new or existing version; None for none.

    Raises:
        EditLoopError: The folder is incomplete, or EDITLOOP_SIGNING_KEY holds no usable key.
    """
    api = client()
    sha256 = str(read_manifest(folder, check=True)["sha256"])
    with tolerate_error("RESOURCE_ALREADY_EXISTS"):
        api.create_registered_model(name)
    version = find_version_by_sha256(name, sha256)
    if version is None or not version.tags.get("editloop.signing_key"):
        path = f"model-{sha256[:12]}"
        with tempfile.TemporaryDirectory() as temporary:
            signature = Path(temporary) / f"{path}{SIGNATURE}"
            key = sign_folder(folder, signature)
            api.log_artifacts(run_id, str(folder), path)
            api.log_artifact(run_id, str(signature))
        source = f"{api.get_run(run_id).info.artifact_uri}/{path}"
        marks = {"editloop.sha256": sha256, "editloop.signing_key": key}
        version = api.create_model_version(name, source, run_id, tags=tags | marks)
    for tag, value in (evidence or {}).items():
        if version.tags.get(tag) != value:
            api.set_model_version_tag(name, version.version, tag, value)
    return str(version.version)


def find_version_by_sha256(name: str, sha256: str) -> "ModelVersion | None":
    """Return the version (MLflow's ModelVersion) with this content; None for none.

    Of several, signed ones come first, then the lowest number.

    Args:
        name: Name in the registry.
        sha256: The folder's sha256, as in its manifest.
    """
    query = f"name = {quoted(name)} and tags.`editloop.sha256` = '{sha256}'"
    versions = all_pages(client().search_model_versions, query)
    return min(
        versions, key=lambda version: ("editloop.signing_key" not in version.tags, int(version.version)), default=None
    )


def set_alias(name: str, alias: str, version: str) -> None:
    """Point an alias at a version, without a record. Use `editloop.lineage.promotion` to move the champion.

    Args:
        name: Name in the registry.
        alias: The alias.
        version: Number of the version.
    """
    client().set_registered_model_alias(name, alias, version)


def find_version(model: str) -> "ModelVersion | None":
    """Return the version (MLflow's ModelVersion) behind an address; None for none.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: `model` is not such an address.
    """
    from mlflow.exceptions import MlflowException

    name, alias, number = parse_model(model)
    try:
        api = client()
        return api.get_model_version_by_alias(name, alias) if alias else api.get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def parse_model(model: str) -> tuple[str, str | None, str | None]:
    """Return name, alias and version number of a model's address. Either the alias or the number is None.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: `model` is not such an address.
    """
    address = model.removeprefix("models:/")
    name, at, alias = address.partition("@")
    if at and name and alias:
        return name, alias, None
    name, slash, number = address.partition("/")
    if address == model or not (name and slash and whole_number(number) is not None):
        raise EditLoopError(f"{model}: not a model's address; write models:/NAME@ALIAS or models:/NAME/VERSION.")
    return name, None, number


def resolve_model(model: str) -> Path | None:
    """Return the checked folder of a registered model; None where there is no such version.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: `model` is not such an address, or `fetch_version` refuses the version.
    """
    version = find_version(model)
    return None if version is None else fetch_version(version)


def require_model(model: str) -> Path:
    """Return the checked folder of a registered model.

    Args:
        model: `models:/NAME@ALIAS` or `models:/NAME/VERSION`.

    Raises:
        EditLoopError: There is no such version, or as in `resolve_model`.
    """
    folder = resolve_model(model)
    if folder is None:
        raise EditLoopError(f"{model}: the registry has no such version; `editloop stage promote` sets an alias.")
    return folder


def fetch_version(version: "ModelVersion") -> Path:
    """Return the folder of a registered version, after checking its content and signature.

    The folder is kept in the cache. A cached one is checked too, and fetched again where it was damaged.

    Args:
        version: The version (MLflow's ModelVersion).

    Raises:
        EditLoopError: The files are not those that were registered.
        SignatureError: They are not signed, or not with a key in EDITLOOP_VERIFY_KEY. It is an EditLoopError too.
    """
    import mlflow

    address = f"models:/{version.name}/{version.version}"
    sha256 = version.tags.get("editloop.sha256")
    if not sha256:
        raise EditLoopError(f"{address} has no tag editloop.sha256; register it again.")
    target = cached_folder(version)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as temporary:
        folder = target
        if target.exists() and not _is_intact(target):
            LOG.warning("%s: the copy in the cache was damaged (%s); it is fetched again.", address, target)
            shutil.rmtree(target)
        if not target.exists():
            folder = Path(temporary) / "model"
            folder.mkdir()
            mlflow.artifacts.download_artifacts(artifact_uri=address, dst_path=str(folder))
        if read_manifest(folder, check=True)["sha256"] != sha256:
            raise EditLoopError(f"{address}: its files are not those that were registered ({sha256}).")
        verify_folder(folder, _fetch_signature(version, Path(temporary) / "signature"))
        if not target.exists():
            folder.rename(target)
    return target


def cached_folder(version: "ModelVersion") -> Path:
    """Return where the cache keeps the folder of a registered version, whether or not it is there.

    The sha256 of the version's manifest names it, so versions of the same files with other facts in their manifests,
    such as one training repeated from another path, do not share a folder: the signature covers the facts too.

    Args:
        version: The version (MLflow's ModelVersion).

    Raises:
        EditLoopError: The registry has no manifest of the version.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        try:
            path = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{str(version.source).rstrip('/')}/{MANIFEST}", dst_path=temporary
            )
        except (MlflowException, OSError) as error:
            if is_unreachable(error):
                raise
            raise EditLoopError(
                f"models:/{version.name}/{version.version}: the registry has no {MANIFEST} of it. Register it again."
            ) from error
        return Path(TrackingSettings().cache) / "models" / sha256_file(Path(path))


def promotions(name: str) -> list[Promotion]:
    """Return the promotion records of a model, oldest first; empty for none.

    Args:
        name: Name in the registry.
    """
    api = client()
    experiment = find_experiment(api, RECORDS)
    if experiment is None:
        return []
    records: dict[int, Promotion] = {}
    query = f"tags.`{PREFIX}model` = {quoted(name)}"
    for run in all_pages(api.search_runs, [experiment], query, order_by=["attributes.start_time ASC"]):
        record = read_promotion(run)
        records.setdefault(record.number, record)  # a repeated request made a second run
    return [records[number] for number in sorted(records)]


def read_promotion(run: "Run") -> Promotion:
    """Return the promotion record that a run holds.

    Args:
        run: A run (MLflow's Run) of the experiment RECORDS.

    Raises:
        EditLoopError: Its tags are not those of a record.
    """
    tags: dict[str, Any] = {
        key.removeprefix(PREFIX): value for key, value in run.data.tags.items() if key.startswith(PREFIX)
    }
    evidence = {key: tags.pop(key) for key in EVIDENCE if key in tags}
    try:
        return Promotion(**tags | {"number": int(tags["number"]), "evidence": evidence, "run_id": run.info.run_id})
    except (KeyError, ValueError, TypeError) as error:
        raise EditLoopError(
            f"run {run.info.run_id} of experiment {RECORDS} is no promotion record ({error}): somebody made or changed "
            "it by hand. Put its tags back, or delete it for good if EditLoop did not make it."
        ) from None


def _is_intact(folder: Path) -> bool:
    """Whether a model in the cache is what was put there; one that is not is a disk's fault or somebody's hand."""
    try:
        read_manifest(folder, check=True)
        return sha256_file(folder / MANIFEST) == folder.name
    except (EditLoopError, OSError):
        return False


def _fetch_signature(version: "ModelVersion", folder: Path) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    folder.mkdir()
    try:
        path = mlflow.artifacts.download_artifacts(artifact_uri=f"{version.source}{SIGNATURE}", dst_path=str(folder))
    except (MlflowException, OSError) as error:
        if is_unreachable(error):
            raise
        raise SignatureError(
            f"models:/{version.name}/{version.version} is not signed: no {SIGNATURE} lies beside its files. Register "
            "the model again."
        ) from error
    return Path(path)

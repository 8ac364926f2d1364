"""Where MLflow's artifacts may lie: on the server itself, in object storage, or in a folder.

Whoever can write to the registry names the place of a version's and a run's files, and MLflow's client sends
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD to the host in that address. A writer could so collect the log-ins
of all who load or promote a version, or make them ask hosts that only they can reach.
"""

from typing import Any, NoReturn
from urllib.parse import urlsplit

from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
from mlflow.tracking import get_tracking_uri

from editloop.addresses import without_secrets
from editloop.errors import EditLoopError

OWN_SCHEME = "mlflow-artifacts"
"""Scheme of artifacts that the MLflow server hands out. A host in such an address must be the server's."""
REFUSED_SCHEMES = ("b2", "dbfs", "ftp", "hdfs", "http", "https", "r2", "sftp", "viewfs")
"""Schemes whose address names any host, and often a log-in. Those of object storage and of folders remain."""


def refuse_foreign_artifacts() -> None:
    """Make MLflow's client in this process refuse artifacts on hosts other than its server's, to read and to write."""
    registry = artifact_repository_registry._artifact_repository_registry
    registry.register(OWN_SCHEME, _own_artifacts)
    for scheme in REFUSED_SCHEMES:
        registry.register(scheme, _refuse)


def _own_artifacts(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> Any:
    """Open artifacts that the server hands out."""
    host, server = _host(artifact_uri), str(tracking_uri or get_tracking_uri())
    if host and host != _host(server):
        _refuse(artifact_uri)
    return MlflowArtifactsRepository(artifact_uri, tracking_uri, registry_uri)


def _refuse(artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> NoReturn:
    raise EditLoopError(
        f"{without_secrets(artifact_uri)}: artifacts lie on MLflow's own server, in object storage or in a folder; "
        "another host would get the log-in. Somebody who can write to the registry gave this address: delete the "
        "version, run or experiment that has it."
    )


def _host(address: str) -> str:
    """Return the host and port of an address, without a log-in."""
    return urlsplit(address).netloc.rpartition("@")[2].lower()

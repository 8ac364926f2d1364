"""Artifacts that MLflow keeps of a step's output, checked against the digests that the step recorded."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from editloop.content import MANIFEST, read_manifest, sha256_file, sha256_json
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.step import LOGGED_SUFFIXES

if TYPE_CHECKING:
    from mlflow.entities import Run

PARALLEL_DOWNLOADS = 4


def fetch_logged_files(run: "Run", folder: Path, names: Collection[str] = ()) -> dict[str, Path]:
    """Fetch artifacts that a run keeps of its output, and check each against the step's manifest.

    Args:
        run: The run (MLflow's Run) of the step.
        folder: Folder to download to.
        names: Names of the files; empty means every readable file at the top of the output.

    Returns:
        The downloaded files by name.

    Raises:
        EditLoopError: A file or the manifest is missing or has changed; the message names the run, and the file.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    run_id, sha256 = run.info.run_id, run.data.tags.get("editloop.output.output")
    store = get_artifact_repository(run.info.artifact_uri)

    def fetched(name: str) -> Path:
        try:
            return Path(store.download_artifacts(name, str(folder)))
        except (MlflowException, OSError) as error:
            raise EditLoopError(f"run {run_id} keeps no {name} ({error})") from error

    files: dict[str, str] = read_manifest(fetched(f"{tracking.MANIFESTS}/output/{MANIFEST}").parent)["files"]
    if sha256_json(files) != sha256:
        raise EditLoopError(f"run {run_id}: the manifest that it keeps is not that of its output {sha256}")
    read = [name for name in files if "/" not in name and Path(name).suffix in LOGGED_SUFFIXES]
    selected = names or read
    if unknown := sorted(set(selected) - set(read)):
        raise EditLoopError(f"run {run_id} wrote no {', '.join(unknown)}")
    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        paths = dict(zip(selected, pool.map(fetched, selected), strict=True))
    changed = [name for name, path in paths.items() if sha256_file(path) != files[name]]
    if changed:
        raise EditLoopError(f"run {run_id}: {', '.join(changed)} changed in MLflow since the step wrote it")
    return paths

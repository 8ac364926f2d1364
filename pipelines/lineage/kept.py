"""What MLflow keeps of a step's output, fetched and compared with the digests that the step recorded."""

import json
from pathlib import Path
from typing import Any

from components.step import LOGGED_SUFFIXES
from infra import tracking
from infra.content import MANIFEST, sha256_file, sha256_json
from infra.errors import EditLoopError


def fetch_kept(run: Any, folder: Path) -> list[Path]:
    """Fetch the files that a run keeps of its output into `folder`: those at its top that people read.

    Raises EditLoopError where one is missing, or is not what the step wrote, naming it; or where the run keeps no
    manifest to tell that by.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    run_id, sha256 = run.info.run_id, run.data.tags.get("editloop.output.output")

    def fetched(name: str) -> Path:
        try:
            return Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=str(folder)))
        except (MlflowException, OSError) as error:
            raise EditLoopError(f"run {run_id} keeps no {name} ({error})") from error

    files: dict[str, str] = json.loads(fetched(f"{tracking.MANIFESTS}/output/{MANIFEST}").read_text())["files"]
    if sha256_json(files) != sha256:
        raise EditLoopError(f"run {run_id}: the manifest that it keeps is not that of its output {sha256}")
    found = []
    for name, digest in files.items():
        if "/" in name or Path(name).suffix not in LOGGED_SUFFIXES:
            continue
        path = fetched(name)
        if sha256_file(path) != digest:
            raise EditLoopError(f"run {run_id}: {name} was changed in MLflow since the step wrote it")
        found.append(path)
    return found

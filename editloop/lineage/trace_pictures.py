"""Images by their content, and the images in edits folders that editors trained on."""

import re
import tempfile
from pathlib import Path
from typing import Any

from editloop.content import MANIFEST, read_manifest, sha256_file, sha256_json, write_json
from editloop.data.picture_file import file_picture_sha256
from editloop.errors import EditLoopError
from editloop.json_file import read_json
from editloop.lineage import tracking

SHA256 = re.compile(r"[0-9a-f]{64}")


def picture_digests(image: str) -> set[str]:
    """Return the sha256 values by which datasets may know an image.

    Args:
        image: A sha256, returned as it is; or the path of an image file. A file gives the sha256 of its bytes,
            by which edits folders list it, and the image's identity, by which datasets do.

    Raises:
        EditLoopError: `image` is neither a sha256 nor an image file.
    """
    if SHA256.fullmatch(image):
        return {image}
    path = Path(image)
    if not path.is_file():
        raise EditLoopError(f"{image}: neither a sha256 (64 hex characters) nor a file.")
    return {sha256_file(path), file_picture_sha256(path)}


def edits_pictures(sha256: str, run_id: str) -> set[str]:
    """Return the sha256 of every file in an edits folder, from the manifest that a run keeps of it.

    The list is kept in the cache.

    Args:
        sha256: sha256 of the edits folder.
        run_id: A run that read the folder.

    Returns:
        The sha256 values; empty where the run keeps no manifest of this folder.
    """
    cache_path = tracking.TrackingSettings().cache / "edits" / f"{sha256}.json"
    if not cache_path.is_file():
        manifest = edits_manifest(run_id)
        if manifest is None or sha256_json(manifest["files"]) != sha256:
            return set()
        write_json(cache_path, manifest["files"])
    digests: dict[str, str] = read_json(cache_path, "Remove it; it is made again.")
    return set(digests.values())


def edits_manifest(run_id: str) -> dict[str, Any] | None:
    """Return the manifest of the edits folder that a run read, as the run keeps it; None where it keeps none.

    Args:
        run_id: The run.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as temporary:
        try:
            name = f"{tracking.MANIFESTS}/{tracking.EXTERNAL_INPUT}/{MANIFEST}"
            path = Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=temporary))
        except (MlflowException, OSError):
            return None
        return read_manifest(path.parent)

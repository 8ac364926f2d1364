"""A picture by its content, and the pictures of the edits folders that editors practised on."""

import io
import json
import re
import tempfile
from pathlib import Path

from editloop.content import MANIFEST, sha256_bytes, sha256_file, sha256_json, write_json
from editloop.data.picture_file import load_image
from editloop.errors import EditLoopError
from editloop.lineage import tracking

SHA256 = re.compile(r"[0-9a-f]{64}")


def picture_digests(image: str) -> set[str]:
    """The sha256 by which the loop may know a picture: as given; or of the file's bytes, and of the PNG that the
    candidates stage makes of it. EditLoopError where `image` is neither a sha256 nor a picture."""
    if SHA256.fullmatch(image):
        return {image}
    path = Path(image)
    if not path.is_file():
        raise EditLoopError(f"{image}: neither a sha256 (64 hex characters) nor a file.")
    buffer = io.BytesIO()
    load_image(path).save(buffer, "PNG")
    return {sha256_file(path), sha256_bytes(buffer.getvalue())}


def edits_pictures(sha256: str, run_id: str) -> set[str]:
    """The sha256 of every file of an edits folder, by the manifest that a run which read it keeps; empty where it keeps
    none. Fetched once, into the cache."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    cache_path = tracking.TrackingSettings().cache / "edits" / f"{sha256}.json"
    if not cache_path.is_file():
        with tempfile.TemporaryDirectory() as temporary:
            try:
                name = f"{tracking.MANIFESTS}/{tracking.EXTERNAL_INPUT}/{MANIFEST}"
                path = Path(download_artifacts(run_id=run_id, artifact_path=name, dst_path=temporary))
            except (MlflowException, OSError):
                return set()
            files = json.loads(path.read_text())["files"]
        if sha256_json(files) != sha256:
            return set()
        write_json(cache_path, files)
    digests: dict[str, str] = json.loads(cache_path.read_text())
    return set(digests.values())

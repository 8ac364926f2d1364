"""Finished steps whose files are no longer what the steps wrote: they are forgotten, so that the next run makes them.

A disk's fault, a copy that was cut short or somebody's hand changes a file of a finished step. Without this, kfp's
cache would hand the damaged folder on at every call.
"""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from editloop.content import read_manifest, sha256_file
from editloop.errors import EditLoopError
from editloop.lineage import tracking
from editloop.lineage.stored_folders import read_pointer
from pipelines.catalogue import STAGES

CACHES = "[0-9a-f]" * 16
"""Pattern of the folders of kfp's cache, one for each state of the code and run."""


class DamagedOutput(NamedTuple):
    """An output of a finished step that is not what the step wrote."""

    path: str
    """Where the step wrote it."""
    fault: str
    """What is wrong with it."""


def forget_damaged_steps(cache: Path) -> list[DamagedOutput]:
    """Remove the entries of a cache whose outputs are not what the steps wrote, and entries that cannot be read.

    Every file of the outputs is read.

    Args:
        cache: Folder of kfp's cache; it may be missing.

    Returns:
        The damaged outputs.
    """
    damaged: list[DamagedOutput] = []
    for entry in sorted(cache.glob("*.json")):
        outputs = _read_entry(entry)
        faults = [fault for output in outputs or () if (fault := _output_fault(output))]
        if outputs is None or faults:
            entry.unlink()
        damaged += faults
    return damaged


def reopen_damaged_runs(root: Path, last_stages: Collection[str]) -> list[DamagedOutput]:
    """Forget the damaged steps of every run of a folder, and let the runs that they belong to count as unfinished.

    Args:
        root: Folder of steps, cache and logs, as `run_local` writes it.
        last_stages: Stages by which a run counts as finished.

    Returns:
        The damaged outputs of finished runs.
    """
    caches = sorted((root / "cache").glob(CACHES))
    damaged = [output for cache in caches for output in forget_damaged_steps(cache)]
    return [output for output in damaged if _reopen(output, last_stages)]


def _reopen(output: DamagedOutput, last_stages: Collection[str]) -> bool:
    """Mark the last step of the run that an output belongs to as failed; False where no finished run has the output."""
    names = {file.argument for stage in STAGES.values() for file in stage.outputs}
    keys = {
        run.data.tags.get("editloop.pipeline_run", "")
        for name in sorted(names)
        for run in tracking.find_runs({f"uri.{name}": output.path}, finished=True)
    }
    for key in keys:
        for stage in last_stages:
            for run in tracking.find_runs(stage=stage, pipeline_run=key, finished=True):
                tracking.client().set_terminated(run.info.run_id, "FAILED")
    return bool(keys)


def _read_entry(entry: Path) -> list[dict[str, Any]] | None:
    """Return the artifacts of a cache's entry that have a digest; None where the entry is none."""
    try:
        outputs = json.loads(entry.read_bytes())
        artifacts = [value for value in outputs.values() if isinstance(value, dict) and "uri" in value]
        return [artifact for artifact in artifacts if artifact["metadata"].get("sha256")]
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        return None


def _output_fault(artifact: dict[str, Any]) -> DamagedOutput | None:
    """Return what is wrong with an output, by the digest that its step gave it; None where nothing is."""
    path, sha256 = Path(artifact["uri"]), artifact["metadata"]["sha256"]
    try:
        if path.is_dir():
            content = read_manifest(path, check=True)["sha256"]
        else:
            pointer = read_pointer(path)
            content = pointer.sha256 if pointer else sha256_file(path)
    except EditLoopError as error:
        return DamagedOutput(str(path), str(error))
    except OSError as error:
        return DamagedOutput(str(path), f"{path}: {error.strerror}")
    return None if content == sha256 else DamagedOutput(str(path), f"{path}: changed since it was written.")

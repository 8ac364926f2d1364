"""Shared by the stages that train: the job file for the ranks, the launch, and the clean-up.

A training's folder is named after its data and settings, never after the output. A retry of the step therefore finds
the checkpoints of its first try.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from editloop.content import sha256_json, write_file
from editloop.interruption import interrupt_on_termination
from editloop.lineage.retries import retry_while_unreachable
from editloop.training.checkpoint_mirror import mirror_of
from editloop.training.launch import Launcher, launch_ranks
from editloop.work_dir import work_dir

log = logging.getLogger(__name__)

RESULT_FOLDER = "result"
"""Subfolder of the work folder that the ranks write to. The stage copies it to its output."""
HISTORY_FILE = "training.json"
"""File in the result that exists once the training has ended."""


class JobFile(BaseModel):
    """One training, as the ranks read it from the job file."""

    model_config = ConfigDict(extra="forbid")

    output: Path
    """Folder that the ranks write the result to."""
    checkpoints: Path
    """Folder of checkpoints, kept only while the training lasts."""


def work_folder(output: Path, kind: str, content: Any) -> Path:
    """Return the folder that a training works in. It depends on `content`, so a retry finds the same folder.

    Args:
        output: Folder that the stage writes in the end.
        kind: What is trained; the folder's name begins with it.
        content: Everything that the result depends on, as JSON, with digests in place of paths.
    """
    return work_dir(output) / f"{kind}-{sha256_json(content)[:16]}"


def launch_job(module: str, job: JobFile, *, processes: int, launch: Launcher = launch_ranks) -> None:
    """Write the job file into the checkpoints' folder, run `module` on it and wait for its end.

    Args:
        module: Python module that each rank runs; its argument is the job file's path.
        job: The training to run.
        processes: Number of ranks.
        launch: Runs the ranks, on this machine or on a cluster.

    Raises:
        EditLoopError: A rank fails.
    """
    path = job.checkpoints / "job.json"
    write_file(path, job.model_dump_json(indent=1))
    with interrupt_on_termination():
        launch(module, path, processes=processes)


def remove_when_delivered(folder: Path) -> None:
    """Remove a work folder once MLflow has all of the training's metrics. Otherwise keep it and say so.

    Args:
        folder: The work folder.
    """
    from editloop.training.metric_log import send_metrics

    try:
        retry_while_unreachable(send_metrics, folder)
        if mirror := mirror_of(folder):
            mirror.remove()
        shutil.rmtree(folder)
    except Exception as error:  # the result is complete without its curves in MLflow
        log.warning("%s: kept, MLflow has not taken all of its curves (%s)", folder, type(error).__name__)

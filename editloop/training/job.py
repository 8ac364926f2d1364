"""What the stages that train share: the file that tells the ranks what to do, their launch, and what follows it.

A TrainJob is named by its command line, of which the job file's path is all that tells one training from another. That
path follows from what is trained on and by what settings, never from where the result goes: a retry of the step finds
the TrainJob of its first try.
"""

import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from editloop.content import sha256_json, write_file
from editloop.lineage.retries import retry_while_unreachable
from editloop.training.launch import Launcher, launch_ranks
from editloop.work_dir import work_dir

RESULT_FOLDER = "result"
"""Folder of a job's work folder that the ranks write to; the stage copies it to its output."""
HISTORY_FILE = "training.json"
"""The file in a result that says that the training has ended."""


class JobFile(BaseModel):
    """One training, as the ranks are told it."""

    model_config = ConfigDict(extra="forbid")

    output: Path
    """Folder to write."""
    checkpoints: Path
    """Folder of the checkpoints while the training lasts."""


def work_folder(output: Path, kind: str, content: Any) -> Path:
    """The folder that a training works in.

    Args:
        output: Folder that the stage writes in the end.
        kind: What is trained, as the folder's name begins.
        content: Everything that the result depends on, as JSON: digests instead of paths.
    """
    return work_dir(output) / f"{kind}-{sha256_json(content)[:16]}"


def launch_job(module: str, job: JobFile, *, processes: int, launch: Launcher = launch_ranks) -> None:
    """Write the job file into the checkpoints' folder and run `module` on it to its end.

    Args:
        module: Python module that each rank runs; its argument is the job file's path.
        job: What to do.
        processes: Number of ranks.
        launch: What runs the ranks: here, or on a cluster.

    Raises:
        EditLoopError: A rank fails.
    """
    path = job.checkpoints / "job.json"
    write_file(path, job.model_dump_json(indent=1))
    launch(module, [str(path)], processes=processes, result=job.output / HISTORY_FILE)


def remove_when_delivered(folder: Path) -> None:
    """Remove a work folder when MLflow has all of the training's curves; else they wait there for it."""
    from editloop.training.metric_log import send_metrics

    try:
        retry_while_unreachable(send_metrics, folder)
        shutil.rmtree(folder)
    except Exception as error:  # the result is complete without them
        print(f"{folder}: kept, MLflow has not taken all of its curves ({type(error).__name__})")

"""Launch of a training's ranks: in local processes, or as a Kubeflow Trainer TrainJob.

`EDITLOOP_LAUNCHER=local` (the default) starts torchrun on this machine. `trainjob` creates a TrainJob, whose pods run
the same module.
"""

from pathlib import Path
from typing import Literal

from editloop.training.launch import launch_ranks
from infra.trainjob import TrainJobSettings, launch_trainjob


class LaunchSettings(TrainJobSettings):
    """Where trainings run, and how."""

    launcher: Literal["local", "trainjob"] = "local"
    """Where the ranks of a training run: processes of this machine, or pods of a TrainJob."""


def launch(module: str, job_file: Path, *, processes: int) -> None:
    """Run `python -m MODULE JOB_FILE` as ranks of one torch.distributed job, and wait for its end (a `Launcher`).

    An interrupt stops all ranks.

    Args:
        module: Python module that each rank runs.
        job_file: The training's job file, in the training's folder.
        processes: Number of ranks, over all pods.

    Raises:
        EditLoopError: The job fails; local ranks give the end of the log.
    """
    settings = LaunchSettings()
    if settings.launcher == "trainjob":
        launch_trainjob(module, job_file, processes, settings)
    else:
        launch_ranks(module, job_file, processes=processes)

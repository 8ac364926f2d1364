"""Launch of distributed work, with one command line: in local processes, or as a Kubeflow Trainer TrainJob.

`EDITLOOP_LAUNCHER=local` (the default) starts torchrun on this machine. `trainjob` creates a TrainJob, whose pods run
the same module with the same arguments.
"""

from pathlib import Path
from typing import Literal

from editloop.training.launch import launch_ranks, torchrun_arguments
from infra.trainjob import TrainJobSettings, launch_trainjob


class LaunchSettings(TrainJobSettings):
    """Where distributed work runs, and how."""

    launcher: Literal["local", "trainjob"] = "local"
    """Where distributed work runs: processes of this machine, or pods of a TrainJob."""


def launch(
    module: str, arguments: list[str], *, processes: int, log: Path | None = None, result: Path | None = None
) -> None:
    """Run `python -m MODULE ARGUMENTS` as ranks of one torch.distributed job, and wait for its end.

    An interrupt stops all ranks.

    Args:
        module: Python module that each rank runs.
        arguments: Its command-line arguments. Equal arguments name the same TrainJob, so they must hold nothing random.
        processes: Number of ranks.
        log: File that gets the ranks' output besides stdout; local ranks only. None for none.
        result: File that the job writes. A TrainJob that an earlier try completed is created again where this file is
            gone. None: no such check.

    Raises:
        EditLoopError: The job fails; local ranks give the end of the log.
    """
    settings = LaunchSettings()
    if settings.launcher == "trainjob":
        per_node = processes // settings.trainjob_nodes
        launch_trainjob(torchrun_arguments(module, arguments, per_node), processes, settings, result)
    else:
        launch_ranks(module, arguments, processes=processes, log=log, result=result)

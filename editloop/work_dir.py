"""The folder for a stage's unfinished work, from which a retry of the step continues."""

from pathlib import Path

from editloop.environment import EnvironmentSettings


class WorkDirSettings(EnvironmentSettings):
    """Where unfinished work is stored."""

    checkpoints: Path | None = None
    """Folder for training checkpoints and judges' answers, one subfolder each. It must survive a retry of the step.
    Unset: `.unfinished` beside the step's output."""


def work_dir(output: Path) -> Path:
    """Return the folder for unfinished work on `output`. Callers add a subfolder whose name identifies the work.

    Args:
        output: The step's output. Where EDITLOOP_CHECKPOINTS is not set, the result is `.unfinished` beside it.
    """
    return WorkDirSettings().checkpoints or output.absolute().parent / ".unfinished"

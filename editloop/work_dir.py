"""Where a stage keeps work that is not done, so that a retry of the step goes on there."""

from pathlib import Path

from editloop.environment import EnvironmentSettings


class WorkDirSettings(EnvironmentSettings):
    """Where work that is not done is kept."""

    checkpoints: Path | None = None
    """Checkpoints of trainings and answers of judges, in a folder each; it must outlive a retry of the step. Unset:
    beside the step's output."""


def work_dir(output: Path) -> Path:
    """The folder for work towards `output`, whose own name must say what it is of."""
    return WorkDirSettings().checkpoints or output.absolute().parent / ".unfinished"

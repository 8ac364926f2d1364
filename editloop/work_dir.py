"""The folder for a stage's unfinished work, from which a retry of the step continues."""

from pathlib import Path

from editloop.environment import EnvironmentSettings


class WorkDirSettings(EnvironmentSettings):
    """Where unfinished work is stored."""

    checkpoints: str | None = None
    """Folder for training checkpoints and judges' answers, one subfolder each. It must survive a retry of the step. Or
    s3://BUCKET/PREFIX, for pods without such a folder: checkpoints are copied there. Unset: `.unfinished` beside the
    step's output."""

    @property
    def checkpoint_bucket(self) -> str | None:
        """Address in object storage that checkpoints are copied to; None where they stay in a folder."""
        address = (self.checkpoints or "").rstrip("/")
        return address if address.startswith("s3://") else None


def work_dir(output: Path) -> Path:
    """Return the folder for unfinished work on `output`. Callers add a subfolder whose name identifies the work.

    Args:
        output: The step's output. Where EDITLOOP_CHECKPOINTS names no folder, the result is `.unfinished` beside it.
    """
    settings = WorkDirSettings()
    if settings.checkpoints and not settings.checkpoint_bucket:
        return Path(settings.checkpoints)
    return output.absolute().parent / ".unfinished"

"""Settings of the containers of the CronJob in infra/k8s that backs up and restores."""

from pydantic import Field

from editloop.environment import EnvironmentSettings
from editloop.object_storage import ObjectFolder


class BackupSettings(EnvironmentSettings):
    """Where back-ups are, and which one is meant."""

    backups: str | None = None
    """s3://BUCKET/PREFIX of all back-ups, best in a bucket of its own."""
    backup_name: str | None = None
    """Name of the back-up to make: a folder with a dump of each database, and a manifest of all the rest."""
    restore: str | None = None
    """Name of a back-up to restore in place of making one."""
    backups_kept: int = Field(0, ge=0)
    """Number of back-ups that stay; older ones are deleted. 0: all stay."""
    profile: str | None = None
    """Deployment profile, whose variables say where everything is; those of the environment come first."""
    overwrite: bool = False
    """Restore into places that are not empty. What is there under other names stays."""

    @property
    def folder(self) -> ObjectFolder:
        """All back-ups.

        Raises:
            EditLoopError: EDITLOOP_BACKUPS is not set, or is no address.
        """
        return ObjectFolder(self.require("backups").rstrip("/"))

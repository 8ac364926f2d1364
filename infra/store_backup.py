"""Back up the dataset repository and what is in object storage, or restore both: a container of infra/k8s' CronJob.

    python -m infra.store_backup

It comes after the dumps of the databases (infra/database_backup.py), so that nothing is missing that they name. Where
everything is, it reads from the deployment profile (EDITLOOP_PROFILE) and from the environment.
"""

import os
import sys

from editloop.errors import EditLoopError
from editloop.interruption import interrupt_on_termination
from infra.backup import back_up_stores
from infra.backup_folder import thin_out
from infra.backup_parts import store_parts
from infra.backup_settings import BackupSettings
from infra.profile import read_profile
from infra.restore import restore_stores

MEGABYTE = 2**20


def main() -> int:
    """Make or restore a back-up, as the environment says, and return the exit code."""
    try:
        settings = BackupSettings()
        variables = {**(read_profile(settings.profile).variables if settings.profile else {}), **os.environ}
        repo, parts = variables.get("EDITLOOP_DATASET_REPO") or None, store_parts(variables)
        with interrupt_on_termination():
            if settings.restore:
                backup = restore_stores(
                    settings.folder,
                    settings.restore,
                    parts,
                    repo,
                    variables.get("EDITLOOP_DATASET_REMOTE") or None,
                    overwrite=settings.overwrite,
                )
                print(f"{len(backup.files):,} files restored from {settings.folder.address}/{settings.restore}")
                return 0
            made = back_up_stores(parts, repo, settings.folder, settings.require("backup_name"))
            print(
                f"{made.name}: {len(made.backup.files):,} files, {made.backup.bytes / MEGABYTE:,.1f} MB, of which "
                f"{made.new_bytes / MEGABYTE:,.1f} MB are new; {len(made.backup.dumps)} dumps"
            )
            if settings.backups_kept and (deleted := thin_out(settings.folder, settings.backups_kept)):
                print(f"deleted: {', '.join(deleted)}")
    except EditLoopError as error:
        print(f"editloop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("editloop: stopped; the same call begins anew and uses what is stored", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

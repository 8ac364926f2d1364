"""Back up a PostgreSQL database to object storage, and restore it: a container of the CronJob in infra/k8s.

    python -m infra.database_backup

libpq's variables (PGHOST, PGDATABASE, PGUSER, PGPASSWORD, ...) name the database.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from editloop.content import sha256_file
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder
from infra.backup_folder import backup_names, check_name, read_backup
from infra.backup_settings import BackupSettings


def back_up_database(database: str, backup: ObjectFolder) -> int:
    """Dump a database to object storage, in pg_dump's own compressed format.

    Args:
        database: The database's name.
        backup: Folder of the dump, DATABASE.dump.

    Returns:
        The dump's size in bytes.

    Raises:
        EditLoopError: pg_dump fails.
        StorageError: The storage cannot be written.
    """
    with tempfile.TemporaryDirectory() as folder:
        dump = Path(folder) / f"{database}.dump"
        arguments = ("--format=custom", "--no-owner", "--no-privileges", f"--file={dump}")
        _run("pg_dump", database, *arguments, advice="Check PGHOST, PGPORT, PGUSER and PGPASSWORD.")
        backup.upload({dump.name: dump})
        return dump.stat().st_size


def restore_database(database: str, backup: ObjectFolder, sha256: str | None = None) -> None:
    """Restore a database from object storage, completely or not at all. It must be empty.

    Args:
        database: The database's name.
        backup: Folder of the dump.
        sha256: The dump's, as the back-up's manifest has it; None where there is no manifest.

    Raises:
        EditLoopError: There is no such dump, it is damaged, or pg_restore fails, as in a database that has tables.
        StorageError: The storage cannot be read.
    """
    dump = f"{database}.dump"
    if dump not in backup.names():
        raise EditLoopError(f"{backup.address}/{dump}: no such back-up. EDITLOOP_RESTORE names the one to restore.")
    with tempfile.TemporaryDirectory() as folder:
        backup.download([dump], Path(folder))
        if sha256 and sha256_file(Path(folder) / dump) != sha256:
            raise EditLoopError(f"{backup.address}/{dump}: is damaged: its sha256 is another. Restore another back-up.")
        arguments = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error", f"{folder}/{dump}")
        advice = "Nothing was restored. It needs an empty database: docs/cluster.md has how to empty one."
        _run("pg_restore", database, *arguments, advice=advice)


def _run(program: str, database: str, *arguments: str, advice: str) -> None:
    """Run one of PostgreSQL's clients; EditLoopError with its reason and the advice where it fails."""
    try:
        done = subprocess.run(
            [program, f"--dbname={database}", *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise EditLoopError(f"{program} is not installed. Install PostgreSQL's client programs.") from None
    if done.returncode:
        lines = done.stderr.splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in lines if "error:" in line), lines[-1])
        raise EditLoopError(f"{database}: {reason.strip()}. {advice}")


def main() -> int:
    """Make or restore a back-up, as the environment says, and return the exit code."""
    try:
        settings = BackupSettings()
        if not (database := os.environ.get("PGDATABASE")):
            raise EditLoopError("PGDATABASE is not set. Set it to the name of the database.")
        name = check_name(settings.restore or settings.require("backup_name"))
        backup = ObjectFolder(f"{settings.folder.address}/{name}")
        if settings.restore:
            dumps = read_backup(settings.folder, name).dumps if name in backup_names(settings.folder) else {}
            restore_database(database, backup, dumps.get(f"{database}.dump"))
            print(f"{database}: restored from {backup.address}/{database}.dump")
        else:
            size = back_up_database(database, backup)
            print(f"{database}: {size / 2**20:.1f} MB in {backup.address}/{database}.dump")
    except EditLoopError as error:
        print(f"editloop: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

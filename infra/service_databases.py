"""Databases of the local services: made once on a machine, copied for each folder, and moved into place when complete.

Migrating an empty database keeps a core busy for half a minute (Label Studio) or several seconds (MLflow). So the empty
databases of each service's version are kept as a template below the user's cache folder, or in
EDITLOOP_SERVICE_TEMPLATES. A template holds tables, but no account, token or key: those are made at the first start of
each folder. Where no template can be kept, each folder's databases are migrated separately.

`make setup` makes the templates of both services; otherwise the first start does. The command is:

    python -m infra.service_databases
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from editloop.content import complete_folder, read_manifest
from editloop.errors import EditLoopError
from editloop.file_lock import locked_folder
from editloop.interruption import defer_signals, interrupt_on_termination
from infra.service_processes import start_process, stop_processes
from infra.service_programs import (
    DATABASES,
    NAMES,
    Service,
    ServiceName,
    migration_commands,
    migration_environment,
    program_version,
)
from infra.settings import LocalServiceSettings

LOCK_SECONDS = 30
"""Seconds to wait for a database that another process has locked."""
LOG_TAIL = 300
"""Characters at the end of a log that a message quotes."""
MIGRATION_SECONDS = 1800
"""Time limit of a migration, many times what a busy machine takes. It only ends a migration that hangs."""
WORK_QUERIES: dict[ServiceName, tuple[str, ...]] = {
    "label-studio": ("SELECT 1 FROM project",),
    "mlflow": (
        "SELECT 1 FROM runs",
        "SELECT 1 FROM registered_models",
        "SELECT 1 FROM experiments WHERE experiment_id <> 0",
    ),
}
"""Queries that return a row where somebody has worked with the service. MLflow creates experiment 0 itself."""


def provide_databases(service: Service, settings: LocalServiceSettings) -> None:
    """Give a service that is not running its databases: those it has, or new ones, moved into place in one step.

    Databases of an interrupted first start, which may lack tables or the account, are replaced unless they hold work.
    The caller must hold the lock of the service's home.

    Args:
        service: The service.
        settings: Settings of the local services.

    Raises:
        EditLoopError: A database cannot be made or read.
    """
    database = service.data / DATABASES[service.name][0]
    if not database.exists() or not (service.ready.exists() or _holds_work(service.name, database)):
        _make_anew(service, settings)
    try:
        with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
            # A write-ahead log (the database file keeps this mode) halves response times on a laptop's disk.
            connection.execute("PRAGMA journal_mode=wal")
    except sqlite3.DatabaseError as error:
        raise EditLoopError(
            f"{database}: {service.name}'s database cannot be read: {error}. Restore it from a copy, or move "
            f"{service.data} away to begin with an empty one."
        ) from error


def template_root(settings: LocalServiceSettings) -> Path:
    """Return the folder of this user's templates.

    Args:
        settings: Settings of the local services.
    """
    if settings.service_templates:
        return settings.service_templates.resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (cache if cache.is_absolute() else Path.home() / ".cache") / "editloop" / "services"


def make_template(name: ServiceName, settings: LocalServiceSettings) -> Path | None:
    """Return the folder with the empty databases of a service's version, made first where it is missing.

    Concurrent calls are safe.

    Args:
        name: The service.
        settings: Settings of the local services.

    Returns:
        The folder; None where the service's version is unknown.

    Raises:
        OSError: The folder cannot be written.
        EditLoopError: The service's migration fails.
    """
    version = program_version(name, settings)
    if version is None:
        return None
    root = template_root(settings)
    target = root / f"{name}-{version}"
    if not _is_whole(name, target):
        with locked_folder(root):
            if not _is_whole(name, target):
                stop_processes(root, name)  # left by a call that was killed
                for leftover in root.glob(f".{target.name}.*"):
                    shutil.rmtree(leftover)
                with complete_folder(target) as folder:
                    _migrate(name, settings, root, folder, root / f"{name}.log")
    return target


def migrate_databases(name: ServiceName, settings: LocalServiceSettings, folder: Path) -> None:
    """Bring databases of another version of a service to that of the present one. The service must not run.

    Args:
        name: The service.
        settings: Settings of the local services.
        folder: The folder with the databases.

    Raises:
        EditLoopError: The service refuses, as where the databases are of a later version.
    """
    log = folder.with_name(f"{name}.log")
    for command in migration_commands(name, settings, folder):
        _run(name, command, folder, folder, log)


def log_tail(log: Path) -> str:
    """Return the end of a log as one line.

    Args:
        log: The file; it need not exist.
    """
    lines = log.read_text(errors="replace").split("\n") if log.is_file() else []
    return " | ".join(line.strip() for line in lines if line.strip())[-LOG_TAIL:] or "nothing in its log"


def _is_whole(name: ServiceName, template: Path) -> bool:
    """Whether a template is complete and unchanged."""
    try:
        return set(read_manifest(template, check=True)["files"]) == set(DATABASES[name])
    except (EditLoopError, ValueError, KeyError):
        return False


def _holds_work(name: ServiceName, database: Path) -> bool:
    """Whether somebody has worked with a database; also True where it cannot be read."""
    with closing(sqlite3.connect(database, timeout=LOCK_SECONDS)) as connection:
        for query in WORK_QUERIES[name]:
            try:
                if connection.execute(f"{query} LIMIT 1").fetchone():
                    return True
            except sqlite3.OperationalError:  # the table does not exist yet
                continue
            except sqlite3.DatabaseError:  # unreadable: never delete it here
                return True
    return False


def _make_anew(service: Service, settings: LocalServiceSettings) -> None:
    aside = service.home / f".{service.name}.new"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        template = make_template(service.name, settings)
    except OSError:
        template = None
    if template:
        for file in DATABASES[service.name]:
            shutil.copyfile(template / file, aside / file)
    else:
        _migrate(service.name, settings, service.home, aside, service.log)
    service.ready.unlink(missing_ok=True)
    shutil.rmtree(service.data, ignore_errors=True)
    aside.rename(service.data)


def _migrate(name: ServiceName, settings: LocalServiceSettings, owner: Path, folder: Path, log: Path) -> None:
    """Let the service create its databases in an empty folder, which then holds nothing else.

    `owner` is the folder in the processes' mark. A later call finds the processes by it where this one is killed.
    """
    work = folder / "work"
    work.mkdir()
    for command in migration_commands(name, settings, work):
        _run(name, command, owner, work, log)
    for file in DATABASES[name]:
        if not (work / file).exists():
            raise EditLoopError(f"{name} made no {file}: {log_tail(log)} (whole log: {log})")
        (work / file).rename(folder / file)
    shutil.rmtree(work)


def _run(name: ServiceName, command: list[str], owner: Path, folder: Path, log: Path) -> None:
    process: subprocess.Popen[bytes] | None = None
    try:
        with defer_signals():
            process = start_process(
                owner, name, command, environment=migration_environment(name, folder), folder=folder, log=log
            )
        code = process.wait(MIGRATION_SECONDS)
    except subprocess.TimeoutExpired:
        raise EditLoopError(
            f"{name} did not make its databases within {MIGRATION_SECONDS} s: {log_tail(log)} (whole log: {log})"
        ) from None
    finally:
        if process and process.poll() is None:
            with defer_signals():
                stop_processes(owner, name)
                process.kill()
                process.wait()
    if code:
        raise EditLoopError(f"{name} could not make its databases: {log_tail(log)} (whole log: {log})")


def main() -> int:
    """Make the missing templates, and return the exit code.

    A cache that cannot be written is not an error: first starts only take longer.
    """
    try:
        settings = LocalServiceSettings()
        with interrupt_on_termination():
            for name in NAMES:
                try:
                    make_template(name, settings)
                except OSError as error:
                    print(
                        f"{template_root(settings)}: {name}'s empty databases cannot be kept there "
                        f"({error.strerror}), so each first start makes its own, which takes longer. Set "
                        "EDITLOOP_SERVICE_TEMPLATES to a folder that you can write to avoid that.",
                        file=sys.stderr,
                    )
    except EditLoopError as error:
        print(f"editloop: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("editloop: stopped; the same call begins anew", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

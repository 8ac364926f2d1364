"""Restore a back-up: a folder of `editloop up` on an empty machine, or what a cluster keeps outside its databases.

All of a back-up is fetched and compared with its sha256 before anything is changed. A folder appears when it is
complete, by one rename.
"""

import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from editloop.content import new_folder
from editloop.datasets.repository_bundle import unbundle_repository
from editloop.datasets.settings import DatasetSettings
from editloop.errors import EditLoopError
from editloop.object_storage import is_address
from editloop.progress import track
from infra.backup_folder import (
    Backup,
    BackupFile,
    batches,
    content_name,
    disk_faults,
    fetch_content,
    read_backup,
    require_content,
)
from infra.backup_parts import (
    BUNDLE,
    DATABASE_FILES,
    SECRET_FILES,
    SECRETS,
    SERVICES,
    STORE_VARIABLES,
    STORES,
    WORK,
    Part,
    store_parts,
)
from infra.file_store import FileStore, open_store
from infra.service_databases import migrate_databases
from infra.service_programs import NAMES, program_version
from infra.services import services_status
from infra.settings import LocalServiceSettings

NEEDED_SECRETS = ("credentials.json", "signing-key.pem")
"""Files without which the services cannot be started, or models not be registered."""
PATHS = (
    ("label-studio/label_studio.sqlite3", "io_storages_localfilesmixin", "path"),
    ("mlflow/mlflow.db", "tags", "value"),
    ("mlflow/mlflow.db", "model_version_tags", "value"),
)
"""Database, table and column with paths below the folder: of pictures, of what steps wrote, of the repository."""


def check_backup(store: FileStore, name: str) -> Backup:
    """Fetch all of a back-up, compare it with its sha256, and throw it away.

    Args:
        store: Where back-ups are.
        name: The back-up's name.

    Returns:
        What it holds.

    Raises:
        EditLoopError: It is missing, damaged or incomplete.
    """
    backup = read_backup(store, name)
    require_content(store, name, backup)
    for batch in track(list(batches(_sizes(backup))), "checking"):
        with disk_faults(name), tempfile.TemporaryDirectory(prefix="editloop-restore-") as temporary:
            fetch_content(store, name, batch, Path(temporary))
    return backup


def restore_services(
    store: FileStore, name: str, folder: Path, *, secrets: Path | None = None, overwrite: bool = False
) -> Backup:
    """Restore a folder of `editloop up`. Nothing is changed unless all of the back-up is there and undamaged.

    Args:
        store: Where back-ups are.
        name: The back-up's name.
        folder: The folder to write, missing or empty.
        secrets: Folder with the files of SECRET_FILES, where the back-up does not have them.
        overwrite: Replace a folder that is not empty. Its services must not run.

    Returns:
        What the back-up holds.

    Raises:
        EditLoopError: The folder is in use, log-ins or keys are missing, or the back-up is damaged.
    """
    backup = read_backup(store, name)
    if backup.kind != "services":
        raise EditLoopError(f"back-up {name}: is of a cluster. docs/cluster.md has how to restore it there.")
    _check_target(folder, overwrite)
    kept = {} if backup.with_secrets and secrets is None else _kept_secrets(name, secrets)
    stores = _store_targets(backup, store_parts(os.environ))
    _check_stores(stores, overwrite)
    require_content(store, name, backup)
    with disk_faults(folder), new_folder(folder) as temporary:
        content = temporary / ".content"
        here = {path: file.sha256 for path, file in backup.files.items() if not path.startswith(f"{STORES}/")}
        for batch in track(list(batches(_sizes(backup))), "fetching and checking"):
            fetch_content(store, name, batch, content)
        _upload(stores, backup.files, content)
        places = {path: temporary / _place(path) for path in here}
        _put(places, here, content)
        shutil.rmtree(content)
        for path, file in kept.items():
            (temporary / SERVICES / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, temporary / SERVICES / path)
        for path in SECRET_FILES:
            if (temporary / SERVICES / path).is_file():
                (temporary / SERVICES / path).chmod(0o600)
        if backup.has_repository:
            remote = DatasetSettings().dataset_remote or ""
            remote = remote if is_address(remote) else str(folder / "dataset-remote")
            unbundle_repository(temporary / BUNDLE, str(temporary / "dataset"), remote)
            (temporary / BUNDLE).unlink()
        _migrate(temporary / SERVICES, backup.versions)
        _relocate(temporary / SERVICES, backup.folder, str(folder))
    return backup


def restore_stores(
    store: FileStore,
    name: str,
    parts: list[Part],
    repo: str | None,
    remote: str | None,
    *,
    overwrite: bool = False,
) -> Backup:
    """Restore the dataset repository and what was in object storage. All is checked before anything is written.

    Args:
        store: Where back-ups are.
        name: The back-up's name.
        parts: Where each part goes.
        repo: Address of the repository, which must be empty; None where the back-up has none.
        remote: Its DVC remote.
        overwrite: Write into places that are not empty. What is there under other names stays.

    Returns:
        What the back-up holds.

    Raises:
        EditLoopError: A place is missing or not empty, or the back-up is damaged.
    """
    backup = read_backup(store, name)
    targets = _store_targets(backup, parts)
    if backup.has_repository and not (repo and remote):
        raise EditLoopError("EDITLOOP_DATASET_REPO and EDITLOOP_DATASET_REMOTE are not set. The back-up has both.")
    _check_stores(targets, overwrite)
    check_backup(store, name)
    stored = {path: file.size for path, file in backup.files.items() if path.startswith(f"{STORES}/")}
    for batch in track(list(batches(stored)), "restoring"):
        with disk_faults(name), tempfile.TemporaryDirectory(prefix="editloop-restore-") as temporary:
            files = {path: backup.files[path] for path in batch}
            fetch_content(store, name, {file.sha256 for file in files.values()}, Path(temporary))
            _upload(targets, files, Path(temporary))
    if backup.has_repository and repo and remote:
        with disk_faults(name), tempfile.TemporaryDirectory(prefix="editloop-restore-") as temporary:
            digest = backup.files[BUNDLE].sha256
            fetch_content(store, name, [digest], Path(temporary))
            unbundle_repository(Path(temporary) / content_name(digest), repo, remote)
    return backup


def _sizes(backup: Backup) -> dict[str, int]:
    """Return the bytes of each content of a back-up, by its sha256."""
    return {file.sha256: file.size for file in backup.files.values()}


def _check_target(folder: Path, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise EditLoopError(f"{folder}: a file. Name a missing or empty folder by --services.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    running = [status.service.name for status in services_status(folder / "services") if status.state != "stopped"]
    if running:
        raise EditLoopError(
            f"{folder}: {' and '.join(running)} run there. Stop them: `editloop down --services {folder}`."
        )
    if not overwrite:
        raise EditLoopError(
            f"{folder}: is not empty. Name another folder by --services, or replace all that is in it by --overwrite."
        )


def _kept_secrets(name: str, secrets: Path | None) -> dict[str, Path]:
    """Return the files with log-ins and keys that were kept elsewhere, by their path below `services`."""
    if secrets is None:
        raise EditLoopError(
            f"back-up {name}: holds no log-ins and no private key. Name the folder in which you keep "
            f"{', '.join(SECRET_FILES)} by --secrets."
        )
    kept = {path: secrets / path for path in SECRET_FILES if (secrets / path).is_file()}
    if missing := [path for path in NEEDED_SECRETS if path not in kept]:
        raise EditLoopError(f"--secrets {secrets}: has no {', '.join(missing)}. Give the folder in which you keep it.")
    return kept


def _store_targets(backup: Backup, parts: list[Part]) -> dict[str, str]:
    """Return the address to which each part in object storage goes, by the part's name."""
    targets = {part.name: part.location for part in parts}
    needed = {"/".join(path.split("/")[:2]) for path in backup.files if path.startswith(f"{STORES}/")}
    if missing := sorted(needed - targets.keys()):
        variables = ", ".join(STORE_VARIABLES.get(part.partition("/")[2], part) for part in missing)
        raise EditLoopError(f"{variables}: not set to an s3:// address, and the back-up holds what was there. Set it.")
    return {part: targets[part] for part in needed}


def _check_stores(targets: Mapping[str, str], overwrite: bool) -> None:
    for location in targets.values():
        if open_store(location).marks() and not overwrite:
            raise EditLoopError(
                f"{location}: is not empty. Give an empty place, or write into this one (--overwrite; on a cluster "
                "EDITLOOP_OVERWRITE=true)."
            )


def _upload(targets: Mapping[str, str], files: Mapping[str, BackupFile], content: Path) -> None:
    """Write those of the files that belong to object storage."""
    for part, location in targets.items():
        names = {path.removeprefix(f"{part}/"): file for path, file in files.items() if path.startswith(f"{part}/")}
        open_store(location).upload({name: content / content_name(file.sha256) for name, file in names.items()})


def _place(path: str) -> str:
    """Return where a file of a back-up belongs, relative to the folder of `editloop up`."""
    top, _, rest = path.partition("/")
    if path in DATABASE_FILES or top == SECRETS:
        return f"{SERVICES}/{path if path in DATABASE_FILES else rest}"
    return rest if top == WORK else path


def _put(places: Mapping[str, Path], digests: Mapping[str, str], content: Path) -> None:
    """Move content to its places; what belongs to several is copied to all but the last."""
    uses = Counter(digests.values())
    for path, place in track(places.items(), "putting files in place", len(places)):
        digest = digests[path]
        place.parent.mkdir(parents=True, exist_ok=True)
        uses[digest] -= 1
        if uses[digest]:
            shutil.copyfile(content / content_name(digest), place)
        else:
            (content / content_name(digest)).replace(place)


def _migrate(home: Path, versions: Mapping[str, str]) -> None:
    """Bring the databases to the present versions of the services, where those that were backed up were others."""
    settings = LocalServiceSettings()
    for service in NAMES:
        before, here = versions.get(service), program_version(service, settings)
        if (home / service).is_dir() and before != here:
            try:
                migrate_databases(service, settings, home / service)
            except EditLoopError as error:
                raise EditLoopError(
                    f"{service} {here} cannot take over the databases of {service} {before}, so nothing was restored. "
                    f"Install that version or a later one. {error}"
                ) from error


def _relocate(home: Path, old: str, new: str) -> None:
    """Lead paths in the databases from the folder that was backed up to the present one."""
    values = {"new": new, "old": f"{old}/", "rest": len(old) + 1}
    for database, table, column in PATHS:
        if old != new and (home / database).is_file():
            with closing(sqlite3.connect(home / database)) as connection, connection:
                connection.execute(
                    f"UPDATE {table} SET {column} = :new || substr({column}, :rest) "
                    f"WHERE substr({column}, 1, length(:old)) = :old",
                    values,
                )

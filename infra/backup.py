"""Make a back-up: of a folder of `editloop up` while its services run, or of what a cluster keeps outside databases.

What refers is read before what it refers to: first the databases, MLflow's before Label Studio's; then the dataset
repository, whose versions MLflow names; then pictures, artifacts and the repository's content, which are only ever
added to. So nothing that a back-up's databases name is missing in it, whatever is written while it is made.
"""

import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from editloop.content import sha256_file
from editloop.datasets.repository_bundle import bundle_repository
from editloop.errors import EditLoopError
from editloop.progress import track
from infra.backup_folder import (
    FORMAT,
    Backup,
    BackupFile,
    batches,
    check_name,
    content_name,
    disk_faults,
    list_backups,
    locked_store,
    present_content,
    write_backup,
)
from infra.backup_parts import BUNDLE, DATABASE_FILES, SECRET_FILES, Part, service_parts
from infra.file_store import FileStore, open_store
from infra.service_programs import NAMES, program_version
from infra.settings import LocalServiceSettings


@dataclass
class BackupRun:
    """A back-up while it is made."""

    store: FileStore
    name: str
    files: dict[str, BackupFile] = field(default_factory=dict)
    known: Mapping[str, BackupFile] = field(default_factory=dict)
    """Files of the back-up before."""
    present: set[str] = field(default_factory=set)
    """sha256 of what is stored already."""
    new_bytes: int = 0
    """Bytes that were not stored before."""

    def add_part(self, part: Part) -> None:
        """Store the files of a part. One whose mark is that of the back-up before is not read again.

        Args:
            part: The part.
        """
        source, changed = open_store(part.location), {}
        marks = {f"{part.name}/{name}": mark for name, mark in source.marks().items() if not part.skip(name)}
        for path, mark in marks.items():
            before = self.known.get(path)
            if before and before.mark == mark and before.sha256 in self.present:
                self.files[path] = before
            else:
                changed[path.removeprefix(f"{part.name}/")] = int(mark.partition("-")[0])
        for names in track(list(batches(changed)), part.name):
            with tempfile.TemporaryDirectory(prefix="editloop-backup-") as temporary:
                fetched = _download(source, names, Path(temporary))
                self.add_files({f"{part.name}/{name}": path for name, path in fetched.items()}, marks)

    def add_files(self, files: Mapping[str, Path], marks: Mapping[str, str] | None = None) -> None:
        """Store files of this machine.

        Args:
            files: Files by their path in the back-up.
            marks: Marks by path; None where the files are to be read again by the next back-up.
        """
        uploads = {}
        for path, file in files.items():
            digest, size = sha256_file(file), file.stat().st_size
            self.files[path] = BackupFile(sha256=digest, size=size, mark=(marks or {}).get(path, ""))
            if digest not in self.present and content_name(digest) not in uploads:
                uploads[content_name(digest)] = file
                self.new_bytes += size
        self.store.upload(uploads)
        self.present |= {name.rpartition("/")[2] for name in uploads}


@dataclass(frozen=True)
class FinishedBackup:
    """A back-up that was made."""

    name: str
    backup: Backup
    new_bytes: int
    """Bytes that no earlier back-up had stored."""


def back_up_services(folder: Path, store: FileStore, name: str, *, with_secrets: bool) -> FinishedBackup:
    """Back up a folder of `editloop up`. Its services may run.

    Args:
        folder: The folder.
        store: Where back-ups are.
        name: Name of the new one.
        with_secrets: Whether log-ins and the private signing key are in it.

    Raises:
        EditLoopError: The folder has no services, a database is damaged, or a file or the store cannot be used.
    """
    home = folder / "services"
    if not home.is_dir():
        raise EditLoopError(f"{folder}: has no services. Name the folder of a demo or of `editloop up` by --services.")
    if store.address.startswith(f"{folder}/"):
        raise EditLoopError(f"{store.address}: lies in {folder}, which is backed up. Choose another place by --to.")
    settings = LocalServiceSettings()
    versions = {service: program_version(service, settings) or "" for service in NAMES}
    with _new_backup(store, name) as run, tempfile.TemporaryDirectory(prefix="editloop-backup-") as temporary:
        staged = Path(temporary)
        dumps = {path: home / path for path in DATABASE_FILES if (home / path).is_file()}
        for path, database in dumps.items():
            dump_database(database, staged / path)
        has_repository = bundle_repository(str(folder / "dataset"), staged / BUNDLE)
        run.add_files({path: staged / path for path in (*dumps, *([BUNDLE] if has_repository else []))})
        secrets = [path for path in SECRET_FILES if with_secrets and (home / path).is_file()]
        run.add_files({f"secrets/{path}": home / path for path in secrets})
        for part in service_parts(folder):
            run.add_part(part)
        backup = Backup(
            format=FORMAT,
            editloop=version("editloop"),
            created=datetime.now(UTC),
            kind="services",
            folder=str(folder),
            versions=versions,
            with_secrets=with_secrets,
            has_repository=has_repository,
            files=run.files,
        )
        return _finish(run, backup)


def back_up_stores(parts: list[Part], repo: str | None, store: FileStore, name: str) -> FinishedBackup:
    """Back up the dataset repository and what is in object storage, after the databases.

    Dumps that lie in the back-up's folder already (infra/database_backup.py) belong to it.

    Args:
        parts: What is in object storage.
        repo: Address of the dataset repository; None for none.
        store: Where back-ups are.
        name: Name of the new one.

    Raises:
        EditLoopError: The repository or a store cannot be used, or two places overlap.
    """
    for part in parts:
        if f"{store.address}/".startswith(f"{part.location}/") or f"{part.location}/".startswith(f"{store.address}/"):
            raise EditLoopError(f"{store.address}: overlaps with {part.location}, which is backed up. Choose another.")
    with _new_backup(store, name) as run, tempfile.TemporaryDirectory(prefix="editloop-backup-") as temporary:
        staged = Path(temporary)
        dumps = sorted(path for path in store.marks() if path.startswith(f"{name}/") and path.endswith(".dump"))
        store.download(dumps, staged)
        digests = {path.removeprefix(f"{name}/"): sha256_file(staged / path) for path in dumps}
        has_repository = repo is not None and bundle_repository(repo, staged / BUNDLE)
        if has_repository:
            run.add_files({BUNDLE: staged / BUNDLE})
        for part in parts:
            run.add_part(part)
        backup = Backup(
            format=FORMAT,
            editloop=version("editloop"),
            created=datetime.now(UTC),
            kind="stores",
            folder="",
            versions={},
            with_secrets=False,
            has_repository=has_repository,
            files=run.files,
            dumps=digests,
        )
        return _finish(run, backup)


def dump_database(database: Path, target: Path) -> None:
    """Copy a SQLite database as it is at one moment, while others may write to it, and check the copy.

    Args:
        database: The database.
        target: The copy.

    Raises:
        EditLoopError: The database cannot be read, or is damaged.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=30)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=delete")
            (state,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise EditLoopError(f"{database}: cannot be backed up: {error}. Restore it from an earlier back-up.") from error
    if state != "ok":
        raise EditLoopError(f"{database}: is damaged: {state}. Restore it from an earlier back-up.")


@contextmanager
def _new_backup(store: FileStore, name: str) -> Iterator[BackupRun]:
    """Begin a back-up of a new name."""
    check_name(name)
    with disk_faults(store.address), locked_store(store):
        before = list_backups(store)
        if name in before:
            raise EditLoopError(f"{store.address}/{name}: is a back-up already. Choose another name by --name.")
        known = list(before.values())[-1].files if before else {}
        yield BackupRun(store, name, known=known, present=present_content(store))


def _download(source: FileStore, names: list[str], target: Path) -> dict[str, Path]:
    """Fetch files. One that was removed since they were listed is left out: nothing in the databases names it."""
    try:
        source.download(names, target)
    except EditLoopError:
        names = sorted(source.marks().keys() & set(names))
        source.download(names, target)
    return {name: target / name for name in names}


def _finish(run: BackupRun, backup: Backup) -> FinishedBackup:
    """Write the manifest, unless content is gone that another call deleted meanwhile."""
    if gone := {file.sha256 for file in run.files.values()} - present_content(run.store):
        raise EditLoopError(
            f"{run.store.address}: {len(gone)} files were deleted while back-up {run.name} was made, so it is not "
            "complete. Make it again, when no other is made or thinned out."
        )
    write_backup(run.store, run.name, backup)
    return FinishedBackup(run.name, backup, run.new_bytes)

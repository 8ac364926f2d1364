"""Back-ups as they lie in a folder or in object storage: listed, read, checked, thinned out.

BACKUPS/NAME/manifest.json      what the back-up holds; written last, so a back-up without one does not exist
BACKUPS/NAME/DATABASE.dump      PostgreSQL's dumps, on a cluster (infra/database_backup.py)
BACKUPS/content/ab/ab12...      every file, once for all back-ups, named by its sha256
"""

import re
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from editloop.content import MANIFEST, sha256_file, sha256_json
from editloop.errors import EditLoopError, there_are
from editloop.file_lock import file_lock
from editloop.settings_file import FrozenModel
from infra.file_store import FileStore, FolderStore

CONTENT, LOCK = "content", "lock"
FORMAT = 1
"""Number of the layout above. A later one is refused."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
BATCH_BYTES, BATCH_FILES = 256 * 2**20, 500
"""Most that is under way between two stores at a time, on the disk of this machine; a larger file goes alone."""


def _relative(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or path != str(pure):
        raise ValueError(f"{path}: leads out of the back-up")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]


class BackupFile(FrozenModel):
    """A file of a back-up."""

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)
    mark: str
    """Mark of the file where it came from, by which the next back-up sees that it is the same."""


class Backup(FrozenModel):
    """Content of a back-up's manifest."""

    format: int
    editloop: str
    """Version that made it."""
    created: datetime
    kind: Literal["services", "stores"]
    """`services`: a folder of `editloop up`. `stores`: what a cluster keeps outside its databases."""
    folder: str
    """The folder of `editloop up`; empty for stores."""
    versions: dict[str, str]
    """Versions of the services, by name."""
    with_secrets: bool
    has_repository: bool
    """Whether the dataset repository is in it."""
    files: dict[RelativePath, BackupFile]
    """By their path: the part that they belong to, and their name in it."""
    dumps: dict[RelativePath, str] = Field(default_factory=dict)
    """sha256 of each dump of PostgreSQL, by its name beside the manifest."""

    @property
    def bytes(self) -> int:
        """Bytes of its files."""
        return sum(file.size for file in self.files.values())


class SealedBackup(FrozenModel):
    """A manifest with its own sha256."""

    sha256: str
    backup: Backup


def content_name(sha256: str) -> str:
    """Return the name under which content lies among the back-ups.

    Args:
        sha256: Its sha256.
    """
    return f"{CONTENT}/{sha256[:2]}/{sha256}"


@contextmanager
def disk_faults(place: str | Path) -> Iterator[None]:
    """Make one line of what this machine's disk refuses within the block.

    Args:
        place: What is read or written, where the fault names no file.

    Raises:
        EditLoopError: A file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise EditLoopError(
            f"{error.filename or place}: {error.strerror or error}. Free space or correct the permissions; files on "
            f"their way go to {tempfile.gettempdir()} (TMPDIR)."
        ) from error


@contextmanager
def locked_store(store: FileStore) -> Iterator[None]:
    """Hold the lock of the back-ups in a folder of this machine within the block. Object storage has none.

    Args:
        store: Where back-ups are.

    Raises:
        EditLoopError: Another call holds it, or the folder cannot be made.
    """
    if not isinstance(store, FolderStore):
        yield
        return
    try:
        store.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EditLoopError(f"{store.root}: cannot be made ({error.strerror}). Choose another folder.") from error
    with file_lock(store.root / LOCK, f"{store.root}: another back-up is made there. Wait for its end."):
        yield


def check_name(name: str) -> str:
    """Return a back-up's name.

    Args:
        name: The name.

    Raises:
        EditLoopError: It is none.
    """
    if not NAME.fullmatch(name) or name in (CONTENT, LOCK):
        raise EditLoopError(f"{name!r}: no name of a back-up. Use letters, digits, `.`, `_` and `-`, 100 at most.")
    return name


def default_name() -> str:
    """Return a name by the present second in UTC, such as 20261129-021700."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}"


def backup_names(store: FileStore) -> list[str]:
    """Return the names of the complete back-ups in a store, in no order.

    Args:
        store: Where back-ups are.
    """
    return [name.split("/")[0] for name in store.marks() if name.count("/") == 1 and name.endswith(f"/{MANIFEST}")]


def list_backups(store: FileStore) -> dict[str, Backup]:
    """Return the complete back-ups in a store by name, oldest first.

    Args:
        store: Where back-ups are.

    Raises:
        EditLoopError: A manifest is damaged.
    """
    backups = {name: read_backup(store, name) for name in backup_names(store)}
    return dict(sorted(backups.items(), key=lambda item: (item[1].created, item[0])))


def read_backup(store: FileStore, name: str) -> Backup:
    """Return what a back-up holds.

    Args:
        store: Where back-ups are.
        name: Its name.

    Raises:
        EditLoopError: There is none of that name, its manifest is damaged, or a later version wrote it.
    """
    data = store.read(f"{check_name(name)}/{MANIFEST}")
    if data is None:
        names = backup_names(store)
        raise EditLoopError(
            f"{store.address}: no back-up {name!r}; {there_are(name, names) if names else 'there is none.'}"
        )
    path = f"{store.address}/{name}/{MANIFEST}"
    try:
        sealed = SealedBackup.model_validate_json(data)
    except ValidationError as error:
        raise EditLoopError(
            f"{path}: is damaged, or a later version wrote it ({error.error_count()} faults). Restore another back-up."
        ) from None
    if sealed.sha256 != sha256_json(sealed.backup.model_dump(mode="json")):
        raise EditLoopError(f"{path}: is damaged: its sha256 is not that of its content. Restore another back-up.")
    if sealed.backup.format > FORMAT:
        raise EditLoopError(f"{path}: of EditLoop {sealed.backup.editloop}, which is later. Restore with that version.")
    return sealed.backup


def write_backup(store: FileStore, name: str, backup: Backup) -> None:
    """Write the manifest of a back-up whose files are all there.

    Args:
        store: Where back-ups are.
        name: Its name.
        backup: What it holds.
    """
    sealed = SealedBackup(sha256=sha256_json(backup.model_dump(mode="json")), backup=backup)
    store.write(f"{name}/{MANIFEST}", sealed.model_dump_json(indent=1).encode())


def present_content(store: FileStore) -> set[str]:
    """Return the sha256 of all content among the back-ups, by its names.

    Args:
        store: Where back-ups are.
    """
    return {name.rpartition("/")[2] for name in store.marks() if name.startswith(f"{CONTENT}/")}


def batches(sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Yield names in groups that fit on the disk of this machine.

    Args:
        sizes: Bytes by name.
    """
    batch: list[str] = []
    room = BATCH_BYTES
    for name, size in sizes.items():
        if batch and (size > room or len(batch) == BATCH_FILES):
            yield batch
            batch, room = [], BATCH_BYTES
        batch.append(name)
        room -= size
    if batch:
        yield batch


def require_content(store: FileStore, name: str, backup: Backup) -> None:
    """Check that all content of a back-up is there. Its bytes are not read.

    Args:
        store: Where back-ups are.
        name: The back-up's name, for messages.
        backup: What it holds.

    Raises:
        EditLoopError: Content is missing.
    """
    missing = sorted({file.sha256 for file in backup.files.values()} - present_content(store))
    if missing:
        raise EditLoopError(
            f"back-up {name}: {store.address}/{content_name(missing[0])} is missing ({len(missing)} files in all). "
            "Nothing was changed. Restore another back-up."
        )


def fetch_content(store: FileStore, name: str, digests: Collection[str], target: Path) -> None:
    """Fetch content of a back-up to files named by their sha256, and check every byte.

    Args:
        store: Where back-ups are.
        name: The back-up's name, for messages.
        digests: The sha256 of what to fetch, which is there, at most a batch.
        target: Folder of the files: target/content/ab/ab12...

    Raises:
        EditLoopError: Content is damaged.
    """
    store.download([content_name(digest) for digest in digests], target)
    for digest in digests:
        if sha256_file(target / content_name(digest)) != digest:
            raise EditLoopError(
                f"back-up {name}: {store.address}/{content_name(digest)} is damaged: its sha256 is another. Nothing "
                "was changed. Restore another back-up. Delete the damaged file, and the next one stores it anew."
            )


def thin_out(store: FileStore, keep: int) -> list[str]:
    """Delete the oldest back-ups, and the content that no other back-up has.

    Args:
        store: Where back-ups are. In object storage, no back-up may be made meanwhile.
        keep: Number of back-ups that stay, the newest.

    Returns:
        Names of those that were deleted.
    """
    with locked_store(store):
        backups = list_backups(store)
        old = list(backups)[:-keep]
        for name in old:  # the manifests first: what is cut off here is no back-up, never half a one
            store.delete([f"{name}/{MANIFEST}", *(f"{name}/{dump}" for dump in backups[name].dumps)])
        used = {file.sha256 for name in backups if name not in old for file in backups[name].files.values()}
        if old:
            store.delete([content_name(digest) for digest in present_content(store) - used])
        return old

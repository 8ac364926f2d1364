"""Locks between processes. The operating system releases a lock when its holder dies."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from editloop.errors import EditLoopError


@contextmanager
def file_lock(path: Path, busy: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock within the block.

    Args:
        path: The lock file; it is created where it is missing, and stays. Its folder must exist.
        busy: Message of the error where another process holds the lock; None waits for it.

    Raises:
        EditLoopError: Another process holds the lock, and `busy` is given.
        OSError: The file cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(timeout=-1 if busy is None else 0)
    except Timeout:
        raise EditLoopError(str(busy)) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder within the block. Other callers wait.

    Args:
        folder: The folder to lock. A missing one is created, readable by its owner only.

    Raises:
        OSError: The folder cannot be written to.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with file_lock(folder / "lock"):
        yield

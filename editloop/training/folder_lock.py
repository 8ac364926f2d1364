"""Lock that allows only one job at a time in a training's folder."""

from pathlib import Path

from filelock import FileLock, Timeout

from editloop.errors import EditLoopError
from editloop.training.distributed import broadcast_object

_LOCKS: dict[Path, FileLock] = {}
"""Locks that this process holds until it ends."""


def lock_training_folder(folder: Path, *, first: bool) -> None:
    """Lock a training's folder for as long as rank 0's process lives. Every rank calls it.

    Args:
        folder: The training's folder.
        first: Whether this is rank 0.

    Raises:
        EditLoopError: Another job holds the lock.
    """
    if not broadcast_object(_locked(folder) if first else None):
        raise EditLoopError(f"{folder}: another job is training here. Wait for it, or stop it.")


def _locked(folder: Path) -> bool:
    lock = _LOCKS.get(folder) or FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    _LOCKS[folder] = lock
    return True

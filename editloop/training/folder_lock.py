"""Lock that allows only one job at a time in a training's folder."""

import fcntl
import os
from pathlib import Path

from editloop.errors import EditLoopError
from editloop.training.distributed import broadcast_object

_LOCKS: dict[Path, int] = {}
"""File descriptors of the locks, which this process holds until it ends."""


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
    lock = _LOCKS[folder] if folder in _LOCKS else os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return False
    _LOCKS[folder] = lock
    return True

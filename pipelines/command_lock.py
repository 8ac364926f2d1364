"""Long commands run one at a time in a folder."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from editloop.errors import EditLoopError


@contextmanager
def command_lock(out: Path, command: str) -> Iterator[None]:
    """Hold the folder, making it where it is missing: two calls of a command in it would undo each other's work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        stream = (out / f"{command}.lock").open("w")
    except OSError as error:
        raise EditLoopError(
            f"{out}: cannot be written to ({error.strerror}); choose another folder by --out."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EditLoopError(f"{out}: another {command} runs there; wait for it or choose another --out.") from error
        yield

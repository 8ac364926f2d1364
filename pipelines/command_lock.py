"""A lock for long commands, which run one at a time in a folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from editloop.errors import EditLoopError
from editloop.file_lock import file_lock


@contextmanager
def command_lock(out: Path, command: str) -> Iterator[None]:
    """Hold the lock of a folder within the block.

    Two calls of one command in the same folder would overwrite each other's files.

    Args:
        out: The folder; it is created where it is missing.
        command: Name of the command.

    Raises:
        EditLoopError: Another call of the command runs there, or the folder cannot be written to.
    """
    busy = f"{out}: another {command} runs there; wait for it or choose another --out."
    with ExitStack() as held:
        try:
            out.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(out / f"{command}.lock", busy))
        except OSError as error:
            raise EditLoopError(
                f"{out}: cannot be written to ({error.strerror}); choose another folder by --out."
            ) from error
        yield

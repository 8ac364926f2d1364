"""One reader for text files that people write: a regular file of bounded size, in UTF-8."""

import os
import re
import stat
from pathlib import Path

from editloop.errors import EditLoopError

LARGEST_TEXT = 4 * 2**20
"""Bytes of the largest file that is read as text: far more than a person writes, far less than memory."""
CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
"""Control characters, apart from tabs and what may end a line or a page."""
BOM = "\ufeff"
KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
"""What a path may be that is no regular file."""


def path_kind(path: Path) -> str | None:
    """Return what a path is where it is no regular file, such as "a folder" or "a pipe"; None for a regular file.

    Args:
        path: The path, or a link.

    Raises:
        OSError: There is nothing there, or it cannot be looked at.
    """
    mode = path.stat().st_mode
    return None if stat.S_ISREG(mode) else KINDS.get(stat.S_IFMT(mode), "no file")


def read_text_file(path: Path, largest: int = LARGEST_TEXT) -> str:
    """Return the text of a file that a person wrote, without a byte order mark.

    Nothing but a regular file is opened to its end: a device or a pipe could give bytes for ever, or wait for ever.

    Args:
        path: The file, or a link to it.
        largest: Most bytes that it may have.

    Raises:
        EditLoopError: It is no regular file, cannot be read, is too large, is not UTF-8, or holds control characters.
            One line.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise EditLoopError(f"{path}: {KINDS.get(stat.S_IFMT(mode), 'no file')}. Give a text file.")
            data = stream.read(largest + 1)
    except IsADirectoryError:
        raise EditLoopError(f"{path}: a folder. Give a text file.") from None
    except OSError as error:
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}). Give a text file.") from error
    except ValueError as error:  # a NUL in the path
        raise EditLoopError(f"{path}: no path ({error}). Give a text file.") from error
    if len(data) > largest:
        raise EditLoopError(f"{path}: larger than {largest >> 10} KiB, so it is another file. Give a text file.")
    try:
        text = data.decode("utf-8").removeprefix(BOM)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise EditLoopError(
            f"{path}: line {line} is not UTF-8 (byte 0x{data[error.start]:02x}). Save the file as UTF-8."
        ) from None
    if match := CONTROL.search(text):
        line = text[: match.start()].count("\n") + 1
        raise EditLoopError(f"{path}: line {line} has the control character U+{ord(match[0]):04X}. Remove it.")
    return text

"""Readers for files from outside: a regular file of bounded size, and one for text that people write, in UTF-8."""

import errno
import os
import re
import stat
from pathlib import Path

from editloop.errors import EditLoopError

LARGEST_TEXT = 4 * 2**20
"""Bytes of the largest file that is read as text: far more than a person writes, far less than memory."""
LARGEST_DATA = 2**30
"""Bytes of the largest file of JSON or text that is read whole."""
MOST_DIGITS = 18
"""Digits of a number that 64 bits hold, whatever they are."""
LONGEST_NAME = 255
"""Bytes of a file's name that file systems take."""
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


def whole_number(text: str) -> int | None:
    """Return the number that a text of digits is, None for any other text.

    Python also counts superscripts as digits, which are no number, and refuses to read thousands of digits.

    Args:
        text: The text.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def is_file_name(name: str) -> bool:
    """Return whether a name from a file can be that of a file in a folder: no path, not too long, nothing odd in it.

    Args:
        name: The name.
    """
    try:
        return (
            name not in ("", "..")
            and Path(name).name == name
            and name.isprintable()
            and len(os.fsencode(name)) <= LONGEST_NAME
        )
    except ValueError:  # half of a surrogate pair
        return False


def file_bytes(path: Path, largest: int = LARGEST_DATA) -> bytes:
    """Return the bytes of a regular file. Nothing else is read: a device or a pipe could give bytes, or wait, for ever.

    Args:
        path: The file, or a link to it.
        largest: Most bytes that it may have.

    Raises:
        OSError: It is missing, no regular file, too large, or cannot be read. Its `strerror` says so.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
        mode = os.fstat(stream.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, KINDS.get(stat.S_IFMT(mode), "no file"), str(path))
        data = stream.read(largest + 1)
    if len(data) > largest:
        raise OSError(errno.EFBIG, f"larger than {largest >> 10} KiB", str(path))
    return data


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
        data = file_bytes(path, largest)
    except IsADirectoryError:
        raise EditLoopError(f"{path}: a folder. Give a text file.") from None
    except OSError as error:
        if error.errno == errno.EINVAL and error.strerror in KINDS.values():
            raise EditLoopError(f"{path}: {error.strerror}. Give a text file.") from None
        if error.errno == errno.EFBIG:
            raise EditLoopError(f"{path}: {error.strerror}, so it is another file. Give a text file.") from None
        raise EditLoopError(f"{path}: cannot be read ({error.strerror}). Give a text file.") from error
    except ValueError as error:  # a NUL in the path
        raise EditLoopError(f"{path}: no path ({error}). Give a text file.") from error
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

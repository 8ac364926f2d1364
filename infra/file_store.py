"""Files below a folder of this machine, or below an address in object storage, read and written in the same way."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from editloop.content import settle, settle_files, write_file
from editloop.errors import EditLoopError
from editloop.object_storage import ObjectFolder, is_address


class FileStore(Protocol):
    """Files by their relative POSIX paths. Every method raises EditLoopError where the store cannot be used."""

    @property
    def address(self) -> str:
        """The folder, or s3://BUCKET/PREFIX."""

    def marks(self) -> dict[str, str]:
        """Return a mark of each file by its name: its size in bytes, a hyphen, and what tells contents apart."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none.

        Args:
            name: The file.
        """

    def write(self, name: str, data: bytes) -> object:
        """Write a small file, completely or not at all.

        Args:
            name: The file.
            data: Its content.
        """

    def upload(self, files: Mapping[str, Path]) -> None:
        """Copy files into the store, each completely or not at all.

        Args:
            files: Files of this machine by their names in the store.
        """

    def download(self, names: Iterable[str], target: Path) -> None:
        """Copy files out of the store, to the same names below a folder.

        Args:
            names: The files.
            target: The folder. Missing ones are created.
        """

    def delete(self, names: Iterable[str]) -> None:
        """Delete files. One that is not there counts as deleted.

        Args:
            names: The files.
        """


def open_store(location: str) -> FileStore:
    """Return the store at a location; nothing is read or made.

    Args:
        location: A folder, or s3://BUCKET/PREFIX.

    Raises:
        EditLoopError: The address names no bucket.
    """
    return ObjectFolder(location) if is_address(location) else FolderStore(Path(location).absolute())


class FolderStore:
    """Files below a folder. What it writes is readable by its owner only."""

    def __init__(self, root: Path):
        """Take a folder, which need not exist.

        Args:
            root: The folder.
        """
        self.root = root

    @property
    def address(self) -> str:
        """The folder."""
        return str(self.root)

    def marks(self) -> dict[str, str]:
        """Return size and time of the last change of each file, by its name. Links are left out."""
        marks = {}
        try:
            for folder, _, names in os.walk(self.root):
                for name in names:
                    path = Path(folder) / name
                    try:
                        status = path.lstat()
                    except FileNotFoundError:  # removed meanwhile
                        continue
                    if path.is_file() and not path.is_symlink():
                        marks[path.relative_to(self.root).as_posix()] = f"{status.st_size}-{status.st_mtime_ns}"
        except OSError as error:
            raise self._fault("read", error) from error
        return marks

    def read(self, name: str) -> bytes | None:
        """Return the content of a small file; None where there is none.

        Args:
            name: The file.
        """
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._fault("read", error) from error

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, completely or not at all.

        Args:
            name: The file.
            data: Its content.
        """
        try:
            self._make((self.root / name).parent)
            write_file(self.root / name, data)
        except OSError as error:
            raise self._fault("written", error) from error

    def upload(self, files: Mapping[str, Path]) -> None:
        """Copy files into the folder, each completely or not at all.

        Args:
            files: Files of this machine by their names in the folder.
        """
        copies: dict[Path, Path] = {}
        try:
            for name, path in files.items():
                target = self.root / name
                self._make(target.parent)
                handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
                copies[target] = Path(temporary)
                with os.fdopen(handle, "wb") as copy, path.open("rb") as stream:
                    shutil.copyfileobj(stream, copy)
            if copies:
                settle_files(self.root)
            for target, copy_path in copies.items():
                copy_path.replace(target)
            for folder in {target.parent for target in copies}:
                settle(folder)
        except OSError as error:
            raise self._fault("written", error) from error
        finally:
            for copy_path in copies.values():
                copy_path.unlink(missing_ok=True)

    def download(self, names: Iterable[str], target: Path) -> None:
        """Copy files out of the folder, to the same names below another one.

        Args:
            names: The files.
            target: The other folder. Missing ones are created.
        """
        try:
            for name in names:
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.root / name, target / name)
        except OSError as error:
            raise self._fault("read", error) from error

    def delete(self, names: Iterable[str]) -> None:
        """Delete files, and folders that are empty then.

        Args:
            names: The files.
        """
        try:
            for name in names:
                path = self.root / name
                path.unlink(missing_ok=True)
                while (path := path.parent) != self.root and path.is_dir() and not any(path.iterdir()):
                    path.rmdir()
        except OSError as error:
            raise self._fault("written", error) from error

    def _make(self, folder: Path) -> None:
        """Make a folder that only its owner can look into."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(mode=0o700, exist_ok=True)

    def _fault(self, action: str, error: OSError) -> EditLoopError:
        where = error.filename or self.root
        return EditLoopError(
            f"{where}: cannot be {action} ({error.strerror or error}). Correct the path or free space."
        )

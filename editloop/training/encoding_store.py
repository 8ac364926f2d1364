"""Encodings of a training's tasks: each is made once, written to disk, and kept in memory while there is room.

A file has one task's tensors. Its name is a digest of what was encoded, so that the ranks of a machine, and a call that
continues a training, find what others have encoded.
"""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from editloop.content import sha256_file, sha256_json
from editloop.errors import EditLoopError
from editloop.models.editors.settings import Size

GIGABYTE = 10**9


class EncodingStore:
    """Tensors of tasks by key."""

    def __init__(self, folder: Path, *, most_bytes: float):
        """Take the folder, which may have encodings already.

        Args:
            folder: Folder of the files, made when the first is written. It is for encodings of one editor, in one type.
            most_bytes: Bytes of encodings that stay in memory: the most recently used.
        """
        self.folder, self.most_bytes = folder, most_bytes
        self.bytes = 0
        """Bytes of the encodings in memory."""
        self._recent: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._recent or self._path(key).is_file()

    def add(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Write a task's tensors to disk, and keep them in memory.

        Args:
            key: The task's key, as `encoding_key` gives it.
            tensors: Tensors on the CPU, by name.

        Raises:
            EditLoopError: The disk is full, or the folder cannot be written to.
        """
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.folder, prefix=".", delete=False) as file:
                save_file(tensors, file.name)
            os.replace(file.name, self._path(key))  # another rank finds the whole file or none
        except (OSError, SafetensorError) as error:
            raise EditLoopError(
                f"{self.folder}: the encodings of the tasks cannot be written ({error}). Make room there, or let "
                "EDITLOOP_CHECKPOINTS name a folder on a larger disk."
            ) from None
        self._remember(key, tensors)

    def get(self, key: str) -> dict[str, Tensor]:
        """Return a task's tensors, by name.

        Args:
            key: A key that the store has.
        """
        with self._lock:
            tensors = self._recent.get(key)
            if tensors is not None:
                self._recent.move_to_end(key)
                return tensors
        tensors = load_file(self._path(key))
        self._remember(key, tensors)
        return tensors

    def _remember(self, key: str, tensors: dict[str, Tensor]) -> None:
        with self._lock:
            self.bytes += _size(tensors) - _size(self._recent.pop(key, {}))
            self._recent[key] = tensors
            while self.bytes > self.most_bytes:
                self.bytes -= _size(self._recent.popitem(last=False)[1])

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"


def encoding_key(instruction: str, size: Size, pictures: Sequence[Path], references: Sequence[Size] = ()) -> str:
    """Return the key of a task's encoding: a digest of its instruction, its sizes and the files of its images.

    Args:
        instruction: The task's instruction.
        size: (height, width) that it is encoded at.
        pictures: Its images, the references among them.
        references: (height, width) of each reference image.
    """
    sizes = [list(references)] if references else []
    return sha256_json([instruction, size, *sizes, *(sha256_file(picture) for picture in pictures)])


def _size(tensors: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())

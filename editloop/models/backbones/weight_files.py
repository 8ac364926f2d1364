"""Read safetensors files: their headers first, and a tensor only when its key and shape are known to be right.

A checkpoint is one file, or a folder of files with an index. Whatever is no plain safetensors file of that folder is
refused by name before a tensor is read: pickles, git-lfs pointers, pipes, lost shards, files outside the folder.
"""

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self, cast

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from torch import Tensor

from editloop.errors import EditLoopError
from editloop.text_file import file_bytes, is_file_name

LOG = logging.getLogger(__name__)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
"""Suffixes of pickled weights, which are refused."""
INDEX = "model.safetensors.index.json"
ANY_INDEX = "*.safetensors.index.json"
"""Pattern of the indexes of models and of parts of pipelines."""
LFS_POINTER = b"version https://git-lfs"
"""Beginning of the small text that git leaves in place of a file that git-lfs has not fetched."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Types of weights that are read, by their names in safetensors. All others are those of quantised weights."""
SHARD_BYTES = 4 * 10**9
"""Most bytes of a file of weights that is written."""
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
KEYS_LISTED = 4
"""Keys that an error message lists, at most."""


class StoredTensor(NamedTuple):
    """A tensor as the header of its file describes it."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Shaped(Protocol):
    """Whatever has the shape of a tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""


class TensorOutline(NamedTuple):
    """Shape and type of a tensor that will be written."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Size of the tensor's values."""
        return math.prod(self.shape) * self.dtype.itemsize


class _Slice(Protocol):
    def get_shape(self) -> list[int]: ...

    def get_dtype(self) -> str: ...


class _Shard(Protocol):
    def keys(self) -> list[str]: ...

    def get_slice(self, key: str) -> _Slice: ...

    def get_tensor(self, key: str) -> Tensor: ...


def check_weight_files(folder: Path) -> None:
    """Check, before any is opened, that a folder's weights are plain safetensors files and that none is lost.

    Args:
        folder: The folder of a model, or of a part of a pipeline. It may have no weights at all.

    Raises:
        EditLoopError: There are only pickled weights, an index cannot be read or names a file that is lost or outside
            the folder, or a file is a pipe or a git-lfs pointer.
    """
    for index in sorted(folder.glob(ANY_INDEX)):
        lost = [name for name in sorted(set(_read_index(index).values())) if not (folder / name).exists()]
        if lost:
            raise EditLoopError(f"{folder}: {_first(lost)} missing, which {index.name} names. Fetch it again.")
    paths = sorted(folder.glob("*.safetensors"))
    for path in paths:
        _check_plain(path)
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled and not paths:
        raise EditLoopError(
            f"{folder}: no safetensors weights, only pickled ones ({', '.join(pickled)}), which run code when they are "
            "opened. Convert the checkpoint to safetensors."
        )


def survey_weights(weights: Path) -> dict[str, StoredTensor]:
    """Read the headers of all safetensors files of a checkpoint. With an index, these are the files that it names.

    Args:
        weights: A folder, or a single safetensors file.

    Returns:
        The tensors by key.

    Raises:
        EditLoopError: There are only pickled weights or none, a file is lost, outside the folder or unreadable, the
            files do not match the index, a key occurs twice, or weights are quantised.
    """
    if weights.is_file():
        return dict(_file_tensors(weights))
    if not weights.is_dir():
        raise EditLoopError(f"{weights}: no such folder or file of weights. Correct the path; nothing is fetched.")
    check_weight_files(weights)
    index = weights / INDEX
    file_by_key = _read_index(index) if index.is_file() else {}
    names = sorted(set(file_by_key.values()) or {path.name for path in weights.glob("*.safetensors")})
    if not names:
        raise EditLoopError(f"{weights}: no safetensors weights there. Give the folder that they lie in.")
    tensors: dict[str, StoredTensor] = {}
    for name in names:
        for key, tensor in _file_tensors(weights / name):
            if key in tensors or (file_by_key and file_by_key.get(key) != name):
                raise EditLoopError(
                    f"{weights / name}: key {key} is not expected here; the shards and the index disagree. Fetch the "
                    "checkpoint again."
                )
            tensors[key] = tensor
    absent = sorted(file_by_key.keys() - tensors.keys())
    if absent:
        raise EditLoopError(f"{weights}: the index names {_first(absent)}, which no shard holds. Fetch it again.")
    return tensors


def read_tensors(tensors: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """Read tensors one after the other, as they are stored.

    Args:
        tensors: The tensors to read, by any names.

    Yields:
        Each name with its tensor, in order.

    Raises:
        EditLoopError: A tensor has NaN or infinite values.
    """
    shards: dict[Path, _Shard] = {}
    for name, stored in tensors.items():
        if stored.path not in shards:
            shards[stored.path] = _open_shard(stored.path)
        tensor = shards[stored.path].get_tensor(stored.key)
        # The least and the largest value show a NaN or an infinity too, and take no memory.
        if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise EditLoopError(
                f"{stored.path}: {stored.key} has NaN or infinite values, so it gives no scores. Fetch the "
                "checkpoint again, or take one that was not broken in training."
            )
        yield name, tensor


class TensorFileWriter:
    """Writes a safetensors file a tensor at a time, in any order: only one needs to be in memory."""

    def __init__(self, path: Path, outline: Mapping[str, TensorOutline]):
        """Create the file, as long as it will be.

        Args:
            path: The file.
            outline: Shape and type of each tensor that will be written.
        """
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        self._starts: dict[str, int] = {}
        end = 0
        for name, tensor in outline.items():
            start, end = end, end + tensor.bytes
            dtype = DTYPE_NAMES[tensor.dtype]
            header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [start, end]}
            self._starts[name] = start
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)  # the values begin at a multiple of 8
        self._outline, self._missing = outline, set(outline)
        self._file = path.open("wb")
        self._file.write(len(text).to_bytes(8, "little") + text)
        self._data = self._file.tell()
        self._file.truncate(self._data + end)

    def write(self, name: str, tensor: Tensor) -> None:
        """Write a tensor's values.

        Args:
            name: A name of the outline.
            tensor: The values, of the outline's shape. They are written in the outline's type.
        """
        outline = self._outline[name]
        assert tuple(tensor.shape) == outline.shape, f"{name}: {tuple(tensor.shape)} for {outline.shape}"
        values = tensor.detach().to("cpu", outline.dtype).contiguous().reshape(-1).view(torch.uint8)
        self._file.seek(self._data + self._starts[name])
        self._file.write(values.numpy().data)
        self._missing.discard(name)

    @property
    def is_complete(self) -> bool:
        """Whether every tensor is written."""
        return not self._missing

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        assert kind or self.is_complete, f"{self._file.name}: {_first(sorted(self._missing))} not written"


def write_weights(
    folder: Path,
    outline: Mapping[str, TensorOutline],
    values: Iterable[tuple[str, Tensor]],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a checkpoint a tensor at a time.

    Args:
        folder: The folder to write into.
        outline: Shape and type of each tensor, by its key in the checkpoint.
        values: All tensors by key, in any order. A tensor with more rows than its shape is cut.
        shard_bytes: Most bytes of a file.
    """
    empty = {key: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for key, tensor in outline.items()}
    plan = split_torch_state_dict_into_shards(empty, max_shard_size=shard_bytes)
    with ExitStack() as stack:
        writers: dict[str, TensorFileWriter] = {}
        for file, keys in plan.filename_to_tensors.items():
            writer = stack.enter_context(TensorFileWriter(folder / file, {key: outline[key] for key in keys}))
            writers |= dict.fromkeys(keys, writer)
        files, written = len(plan.filename_to_tensors), 0
        for key, tensor in values:
            writers[key].write(key, tensor[: outline[key].shape[0]] if tensor.ndim else tensor)
            if writers[key].is_complete:
                written += 1
                LOG.info("%d of %d files of weights written", written, files)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


def copy_weights(tensors: Mapping[str, StoredTensor], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write stored tensors as a checkpoint, in the types in which they are stored.

    Args:
        tensors: The tensors by their keys in the new checkpoint. A tensor with more rows than its shape here is cut.
        folder: The folder to write into.
        shard_bytes: Most bytes of a file.

    Raises:
        EditLoopError: A tensor has NaN or infinite values.
    """
    outline = {key: TensorOutline(stored.shape, stored.dtype) for key, stored in tensors.items()}
    write_weights(folder, outline, read_tensors(tensors), shard_bytes)


def check_keys(stored: Mapping[str, Shaped], expected: Mapping[str, Shaped], what: str) -> None:
    """Check that tensors have the expected keys and shapes.

    Args:
        stored: The tensors to check.
        expected: Tensors with the expected keys and shapes.
        what: What the message calls the checkpoint.

    Raises:
        EditLoopError: Keys are missing or surplus, or shapes are wrong. The message names the first of each.
    """
    missing, surplus = sorted(expected.keys() - stored.keys()), sorted(stored.keys() - expected.keys())
    wrong = [
        f"{key} {tuple(stored[key].shape)} for {tuple(expected[key].shape)}"
        for key in sorted(expected.keys() & stored.keys())
        if tuple(stored[key].shape) != tuple(expected[key].shape)
    ]
    faults = [
        f"{kind} {_first(keys)}"
        for kind, keys in (("missing", missing), ("surplus", surplus), ("of wrong shape", wrong))
        if keys
    ]
    if faults:
        raise EditLoopError(f"{what}: {'; '.join(faults)}. This is not a checkpoint of that model, or not a whole one.")


def _read_index(path: Path) -> dict[str, str]:
    try:
        index = json.loads(file_bytes(path))
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({error}). Fetch the checkpoint again.") from None
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise EditLoopError(f"{path}: no `weight_map` from keys to file names in it. Fetch the checkpoint again.")
    outside = sorted({name for name in names.values() if not is_file_name(name) or not name.endswith(".safetensors")})
    if outside:
        raise EditLoopError(
            f"{path}: names {_first([repr(name) for name in outside])}; a shard is a .safetensors file of that folder."
        )
    return dict(names)


def _file_tensors(path: Path) -> Iterator[tuple[str, StoredTensor]]:
    shard = _open_shard(path)
    for key in shard.keys():  # noqa: SIM118
        described = shard.get_slice(key)
        dtype = DTYPES.get(described.get_dtype())
        if dtype is None:
            raise EditLoopError(
                f"{path}: {key} is of type {described.get_dtype()}, as quantised weights are; read are "
                f"{', '.join(DTYPES)}. Take the checkpoint that was not quantised."
            )
        yield key, StoredTensor(path, key, tuple(described.get_shape()), dtype)


def _check_plain(path: Path) -> None:
    if not path.is_file():
        raise EditLoopError(f"{path}: no plain file, so no safetensors file. Fetch the checkpoint again.")
    if path.suffix in PICKLES:
        raise EditLoopError(f"{path}: pickled weights, which run code when they are opened. Convert it to safetensors.")
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise EditLoopError(f"{path}: a git-lfs pointer, not the weights. Run `git lfs pull` there.")


def _open_shard(path: Path) -> _Shard:
    _check_plain(path)
    try:
        return cast(_Shard, safe_open(path, framework="pt"))
    except (OSError, SafetensorError) as error:
        raise EditLoopError(f"{path}: not a readable safetensors file ({error}). Fetch the checkpoint again.") from None


def _first(names: list[str]) -> str:
    return ", ".join(names[:KEYS_LISTED]) + (
        f" and {len(names) - KEYS_LISTED} more" if len(names) > KEYS_LISTED else ""
    )

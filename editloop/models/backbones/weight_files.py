"""Read safetensors files: their headers first, and a tensor only when its key and shape are known to be right.

A checkpoint is one file, or a folder of files with an index. Whatever is no plain safetensors file of that folder is
refused by name before a tensor is read: pickles, git-lfs pointers, pipes, lost shards, files outside the folder.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from editloop.errors import EditLoopError

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
"""Most bytes of a file of weights that is written: what is in memory at once."""
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
        if not tensor.isfinite().all():
            raise EditLoopError(
                f"{stored.path}: {stored.key} has NaN or infinite values, so it gives no scores. Fetch the "
                "checkpoint again, or take one that was not broken in training."
            )
        yield name, tensor


def copy_weights(tensors: Mapping[str, StoredTensor], folder: Path, shard_bytes: int = SHARD_BYTES) -> None:
    """Write tensors as a checkpoint, a file at a time, in the types in which they are stored.

    Args:
        tensors: The tensors by their keys in the new checkpoint. A tensor with more rows than its shape here is cut.
        folder: The folder to write into.
        shard_bytes: Most bytes of a file.

    Raises:
        EditLoopError: A tensor has NaN or infinite values.
    """
    outline = {name: torch.empty(stored.shape, dtype=stored.dtype, device="meta") for name, stored in tensors.items()}
    plan = split_torch_state_dict_into_shards(outline, max_shard_size=shard_bytes)
    for count, (file, names) in enumerate(plan.filename_to_tensors.items(), start=1):
        shard = {
            name: (tensor[: tensors[name].shape[0]] if tensor.ndim else tensor).contiguous()
            for name, tensor in read_tensors({name: tensors[name] for name in names})
        }
        save_file(shard, folder / file, {"format": "pt"})
        LOG.info("%d of %d files of weights written", count, len(plan.filename_to_tensors))
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index, indent=1) + "\n")


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
        index = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise EditLoopError(f"{path}: cannot be read as JSON ({error}). Fetch the checkpoint again.") from None
    names = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise EditLoopError(f"{path}: no `weight_map` from keys to file names in it. Fetch the checkpoint again.")
    outside = sorted({name for name in names.values() if Path(name).name != name or not name.endswith(".safetensors")})
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

"""Preference groups: all candidates of a task with the experts' ratings, read lazily from a dataset folder.

Ratings and pairs are small and stay in memory. Images stay in the parquet shards, whose row groups pass through a
bounded cache, so that a dataset may be larger than memory. Edits and references are decoded when they are first looked
at.
"""

import io
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from editloop.data.picture_file import UNREADABLE, first_line
from editloop.data.picture_size import Picture, shrink
from editloop.data.vocabulary import AXES
from editloop.datasets.shards import PICTURES, REFERENCES, shards
from editloop.errors import EditLoopError

ROW_COLUMNS = ["task_id", "task_type", "instruction", "candidate_id", "editor", "if_mean", "vq_mean"]
Size = tuple[int, int]
"""(height, width) in pixels."""
CACHE_BYTES = 64 * 2**20
"""Encoded images kept in memory, over all row groups of one split."""
OPEN_SHARDS = 16
"""Shards of a split that are open at a time. An open one holds its index in memory."""


@dataclass(frozen=True)
class PreferenceGroup:
    """One task and its K candidates. It can be used wherever an EditGroup can."""

    task_id: str
    task_type: str
    instruction: str
    candidates: tuple[str, ...]
    editors: tuple[str, ...]
    source: Picture
    target: Picture | None
    edits: Sequence[Picture]
    """The K images."""
    ratings: NDArray[np.float32]
    """(K, 2): mean rating over annotators, 1..4: instruction following, visual quality."""
    weights: NDArray[np.float32]
    """(K, K, 2): weight of each pair on each axis, 0..1, symmetric. 0 where there is no pair or a tie."""
    references: Sequence[Picture] = ()
    """Further images of which the instruction speaks: image 2 and those after it."""

    @property
    def key(self) -> str:
        """The task id, as the group's name."""
        return self.task_id


class PictureSizes(NamedTuple):
    """Sizes of a group's images."""

    source: Size
    references: list[Size]
    edits: list[Size]


class LazyPictures(Sequence[Picture]):
    """Images that are decoded when they are first looked at, and kept."""

    def __init__(self, encoded: Sequence[bytes], decode: Callable[[bytes], Picture]):
        """Take the encoded images.

        Args:
            encoded: The images as files.
            decode: Returns the pixels of one.
        """
        self._encoded, self._decode = encoded, decode
        self._decoded: dict[int, Picture] = {}

    def __len__(self) -> int:
        return len(self._encoded)

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> list[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | list[Picture]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        if position not in self._decoded:
            self._decoded[position] = self._decode(self._encoded[position])
        return self._decoded[position]


class PreferenceGroups(Sequence[PreferenceGroup]):
    """The groups of one split of a dataset folder, in the dataset's order. Several threads may read it."""

    def __init__(self, dataset: Path, split: str, side: int | None = None, *, targets: bool = True):
        """Read ratings and pairs. Images are read with each group.

        Args:
            dataset: The dataset folder.
            split: `train`, `validation` or `test`.
            side: Make images squares of at most this many pixels. None: keep their sizes.
            targets: Whether to read the targets. False: every group's is None, as training needs none.

        Raises:
            EditLoopError: The folder has no shards of the split, or broken ones.
        """
        self._side = side
        self._columns = [name for name in PICTURES if targets or name != "target"]
        self._open = lru_cache(OPEN_SHARDS)(parquet.ParquetFile)
        self._groups: list[tuple[Path, int]] = []
        """Shard and number of each row group of the split."""
        self._rows: list[dict[str, Any]] = []
        sizes: list[int] = []
        for path in shards(dataset, "candidates", split):
            file = self._open(path)
            self._groups += [(path, group) for group in range(file.num_row_groups)]
            sizes += [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            self._rows += file.read(columns=ROW_COLUMNS).to_pylist()
        self._columns += {REFERENCES} & {*file.schema_arrow.names}  # which all shards have, or none
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
        self._places: dict[str, list[int]] = {}
        for index, row in enumerate(self._rows):
            self._places.setdefault(row["task_id"], []).append(index)
        self._tasks = list(self._places)
        pairs = (row for path in shards(dataset, "pairs", split) for row in parquet.read_table(path).to_pylist())
        self._weights = {(pair["task_id"], frozenset((pair["a"], pair["b"]))): _weight(pair) for pair in pairs}
        self._cache: OrderedDict[int, dict[str, list[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def have_references(self) -> bool:
        """Whether some task of the dataset has reference images."""
        return REFERENCES in self._columns

    def sizes(self) -> list[tuple[str, int]]:
        """Return task id and number of candidates of each group, without reading images."""
        return [(task, len(self._places[task])) for task in self._tasks]

    def instructions(self) -> list[tuple[str, str]]:
        """Return task id and instruction of each group, without reading images."""
        return [(task, self._rows[self._places[task][0]]["instruction"]) for task in self._tasks]

    def picture_sizes(self) -> Iterator[PictureSizes]:
        """Yield the sizes of each group's images. Decodes none."""
        for task in self._tasks:
            encoded = [self._pictures(row) for row in self._places[task]]
            yield PictureSizes(
                _size(encoded[0]["source"]),
                [_size(reference) for reference in encoded[0].get(REFERENCES, ())],
                [_size(pictures["image"]) for pictures in encoded],
            )

    @overload
    def __getitem__(self, index: int) -> PreferenceGroup: ...
    @overload
    def __getitem__(self, index: slice) -> list[PreferenceGroup]: ...
    def __getitem__(self, index: int | slice) -> PreferenceGroup | list[PreferenceGroup]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        task = self._tasks[index]
        members = [self._rows[row] for row in self._places[task]]
        encoded = [self._pictures(row) for row in self._places[task]]
        ids = tuple(row["candidate_id"] for row in members)
        no_weight = np.zeros(len(AXES), np.float32)
        return PreferenceGroup(
            task_id=task,
            task_type=members[0]["task_type"],
            instruction=members[0]["instruction"],
            candidates=ids,
            editors=tuple(row["editor"] for row in members),
            source=self._decoded(task, encoded[0]["source"]),
            target=self._decoded(task, target) if (target := encoded[0].get("target")) is not None else None,
            edits=LazyPictures([pictures["image"] for pictures in encoded], partial(self._decoded, task)),
            references=self._references(task, encoded[0]),
            ratings=np.array([[row["if_mean"], row["vq_mean"]] for row in members], np.float32),
            weights=np.array(
                [[self._weights.get((task, frozenset((first, second))), no_weight) for second in ids] for first in ids],
                np.float32,
            ),
        )

    def _references(self, task: str, encoded: dict[str, Any]) -> Sequence[Picture]:
        references = encoded.get(REFERENCES)
        return LazyPictures(references, partial(self._decoded, task)) if references else ()

    def _pictures(self, row: int) -> dict[str, Any]:
        """Return the encoded images of one row, by column."""
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        with self._lock:
            if number not in self._cache:
                path, group = self._groups[number]
                try:
                    table = self._open(path).read_row_group(group, columns=self._columns)
                except (pa.ArrowException, OSError) as error:
                    fault = f"{path}: row group {group} cannot be read ({first_line(error)})"
                    raise EditLoopError(f"{fault}; fetch the dataset again.") from None
                self._cache[number] = {name: table[name].to_pylist() for name in self._columns}
                while len(self._cache) > 1 and sum(map(_bytes, self._cache.values())) > CACHE_BYTES:
                    self._cache.popitem(last=False)
            self._cache.move_to_end(number)
            columns = self._cache[number]
        return {name: columns[name][row - self._starts[number]] for name in self._columns}

    def _decoded(self, task: str, png: bytes) -> Picture:
        try:
            picture = Image.open(io.BytesIO(png))
            picture.load()
        except UNREADABLE as error:
            reason = "unknown format" if isinstance(error, UnidentifiedImageError) else first_line(error)
            raise EditLoopError(f"task {task}: an image of the dataset is broken ({reason}); fetch it again.") from None
        if self._side is not None:
            return shrink(picture, self._side)
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def read_groups(dataset: Path, split: str, side: int | None = None, *, targets: bool = True) -> PreferenceGroups:
    """Return the groups of one split of a dataset folder.

    Args:
        dataset: The dataset folder.
        split: `train`, `validation` or `test`.
        side: Make images squares of at most this many pixels. None: keep their sizes.
        targets: Whether to read the targets. False: every group's is None.

    Raises:
        EditLoopError: The folder has no shards of the split, or broken ones.
    """
    return PreferenceGroups(dataset, split, side, targets=targets)


def _size(png: bytes) -> Size:
    with Image.open(io.BytesIO(png)) as picture:
        return picture.height, picture.width


def _bytes(columns: dict[str, list[Any]]) -> int:
    """Return the size of the encoded images of a row group; the references' column has a list of them in each row."""
    references = (picture for pictures in columns.get(REFERENCES, ()) for picture in pictures)
    single = (picture for name in PICTURES for picture in columns.get(name, ()) if picture)
    return sum(map(len, chain(single, references)))


def _weight(pair: dict[str, Any]) -> NDArray[np.float32]:
    """Return a pair's weight on each axis: 2 confidence - 1, at least 0. A tie has weight 0."""
    return np.array(
        [max(0.0, 2 * pair[f"{axis}_confidence"] - 1) if pair[f"{axis}_order"] else 0.0 for axis in AXES], np.float32
    )

"""Parquet shards of a dataset folder: `candidates-<split>-00000.parquet`, `pairs-<split>-00000.parquet`, and so on.

All candidates of a task are in one shard, and its pairs in the shard of the same number. Where some task of a dataset
has reference images, all its shards of candidates have the column `references`; elsewhere none has.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from editloop.datasets.splits import Split
from editloop.errors import EditLoopError

MEGABYTES = 256
"""Default size of a shard's images: any store takes such a file in one piece."""
ROWS_A_GROUP, BYTES_A_GROUP = 256, 2**20
"""A row group ends after the task that reaches a limit. A shuffled reader reads a whole group for each task: with
images of 512 pixels or more that is the task itself."""
PICTURES = ("source", "target", "image")
"""Columns with one encoded image each."""
REFERENCES = "references"
"""Column with the encoded reference images, image 2 and those after it; an empty list for a task without."""
Kind = Literal["candidates", "pairs"]

CANDIDATE_COLUMNS: list[tuple[str, pa.DataType]] = [
    *((name, pa.string()) for name in ("task_id", "name", "task_type", "split", "instruction")),
    ("source", pa.binary()),
    ("target", pa.binary()),
    ("candidate_id", pa.string()),
    ("image", pa.binary()),
    ("editor", pa.string()),
    ("if_mean", pa.float64()),
    ("vq_mean", pa.float64()),
    ("ratings", pa.int64()),
]
PAIR_COLUMNS: list[tuple[str, pa.DataType]] = [
    *((name, pa.string()) for name in ("task_id", "a", "b")),
    *((name, pa.int8()) for name in ("if_order", "vq_order", "overall_order")),
    *((name, pa.float64()) for name in ("if_margin", "vq_margin", "if_confidence", "vq_confidence", "confidence")),
]
CANDIDATE_ROWS, PAIR_ROWS = pa.schema(CANDIDATE_COLUMNS), pa.schema(PAIR_COLUMNS)
SCHEMAS: dict[Kind, pa.Schema] = {"candidates": CANDIDATE_ROWS, "pairs": PAIR_ROWS}
CANDIDATE_ROWS_WITH_REFERENCES = CANDIDATE_ROWS.insert(
    CANDIDATE_ROWS.get_field_index("target"), pa.field(REFERENCES, pa.list_(pa.binary()))
)


def shards(dataset: Path, kind: Kind, split: str) -> list[Path]:
    """Return the shards of one kind and split of a dataset folder, in order.

    Args:
        dataset: The dataset folder.
        kind: `candidates` or `pairs`.
        split: `train`, `validation` or `test`.

    Raises:
        EditLoopError: There are none, or one is not a parquet file with the columns of its kind, or only some have the
            column of references.
    """
    paths = sorted(dataset.glob(f"{kind}-{split}-*.parquet"))
    if not paths:
        raise EditLoopError(
            f"{dataset}: has no {kind}-{split}-*.parquet; give a folder that stage dataset wrote, and run the stage "
            "again for an older one."
        )
    allowed = [SCHEMAS[kind]] + ([CANDIDATE_ROWS_WITH_REFERENCES] if kind == "candidates" else [])
    for path in paths:
        try:
            columns = pq.read_schema(path)
        except (pa.ArrowException, OSError) as error:
            raise EditLoopError(f"{path}: no readable parquet file ({error}); fetch the dataset again.") from error
        allowed = [schema for schema in allowed if columns.equals(schema)]
        if not allowed:
            raise EditLoopError(f"{path}: has other columns than a dataset's {kind}; run stage dataset again.")
    return paths


class ShardWriter:
    """Writes the shards of one split, holding a bounded number of rows in memory. Equal rows give equal bytes.

    Call `close` at the end.
    """

    def __init__(self, folder: Path, split: Split, megabytes: float, *, references: bool = False):
        """Open the first shard.

        Args:
            folder: The dataset folder.
            split: The split.
            megabytes: Largest size of a shard's images, in MiB. A single larger task gets a shard to itself.
            references: Whether the candidates have the column of reference images.
        """
        self._schemas = SCHEMAS | ({"candidates": CANDIDATE_ROWS_WITH_REFERENCES} if references else {})
        self._folder, self._split, self._limit = folder, split, megabytes * 2**20
        self._count = 0
        self._open()

    def add(self, candidates: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> None:
        """Add the rows of one task. A new shard begins where the current one would become too large.

        Args:
            candidates: Rows of schema CANDIDATE_ROWS, or CANDIDATE_ROWS_WITH_REFERENCES.
            pairs: Rows of schema PAIR_ROWS.
        """
        size = sum(
            len(picture or b"")
            for row in candidates
            for picture in (*(row[name] for name in PICTURES), *row.get(REFERENCES, ()))
        )
        if self._size and self._size + size > self._limit:
            self.close()
            self._open()
        self._size += size
        self._waiting += size
        self._rows["candidates"] += candidates
        self._rows["pairs"] += pairs
        if self._waiting >= BYTES_A_GROUP or max(map(len, self._rows.values())) >= ROWS_A_GROUP:
            self._flush()

    def _open(self) -> None:
        self._size = self._waiting = 0
        self._rows: dict[Kind, list[dict[str, Any]]] = {"candidates": [], "pairs": []}
        self._writers = {
            kind: pq.ParquetWriter(
                self._folder / f"{kind}-{self._split}-{self._count:05d}.parquet", schema, compression="zstd"
            )
            for kind, schema in self._schemas.items()
        }
        self._count += 1

    def _flush(self) -> None:
        for kind, rows in self._rows.items():
            if rows:
                self._writers[kind].write_table(pa.Table.from_pylist(rows, self._schemas[kind]))
            self._rows[kind] = []
        self._waiting = 0

    def close(self) -> None:
        """Write what is waiting and close the files."""
        self._flush()
        for writer in self._writers.values():
            writer.close()


def rows_of_tasks(dataset: Path, split: str) -> Iterator[list[dict[str, Any]]]:
    """Yield the candidate rows of one split, task by task, with one row group at a time in memory.

    Args:
        dataset: The dataset folder.
        split: `train`, `validation` or `test`.

    Raises:
        EditLoopError: There are no shards, or broken ones.
    """
    task_rows: list[dict[str, Any]] = []
    for path in shards(dataset, "candidates", split):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for row in file.read_row_group(group).to_pylist():
                if task_rows and task_rows[0]["task_id"] != row["task_id"]:
                    yield task_rows
                    task_rows = []
                task_rows.append(row)
    if task_rows:
        yield task_rows

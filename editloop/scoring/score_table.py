"""The table of scores, and the parts that it grows by, so that a stopped call can be resumed.

While the table `NAME` is being written, the folder `NAME.parts/` beside it holds `table.json` (what the scores depend
on: model, input and settings) and one parquet file for each `part_tasks` tasks. At the end they are joined into one
file, which keeps the same facts in its metadata.
"""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as parquet

from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Score
from editloop.scoring.resuming import check_facts, locked_folder
from editloop.text_file import path_kind

GROUP_ROWS = 16_384
"""Rows of a row group of the table, at least, but for the last."""
FACTS_KEY = b"editloop"
"""Key of the facts in the table's metadata."""


class ScoredEdit(NamedTuple):
    """A row of the table: one edit with its score."""

    id: str
    candidate: int
    """Its index among the task's candidates, from 0."""
    image: str
    """Path relative to the input's folder."""
    editor: str
    source_sha256: str | None
    """Identity of the image's pixels, `picture_sha256`; None if it cannot be decoded."""
    image_sha256: str | None
    """The same for the edit."""
    score: Score


def score_schema(axes: Sequence[str]) -> pa.Schema:
    """Return the schema of a table of scores.

    Its column `missing` is null where there is a score; otherwise it says why there is none.

    Args:
        axes: The judge's axes.
    """
    numbers = [*(f"{axis}_{figure}" for axis in (*axes, "fused") for figure in ("mean", "sigma")), "overall", "reward"]
    columns: list[tuple[str, pa.DataType]] = [
        ("id", pa.string()),
        ("candidate", pa.int32()),
        *((name, pa.string()) for name in ("image", "editor", "source_sha256", "image_sha256")),
        *((name, pa.float64()) for name in numbers),
        ("missing", pa.string()),
    ]
    return pa.schema(columns)


def _columns(row: ScoredEdit) -> dict[str, Any]:
    beliefs = row.score.axes | ({"fused": row.score.fused} if row.score.fused else {})
    numbers = {f"{name}_{key}": value for name, belief in beliefs.items() for key, value in asdict(belief).items()}
    numbers |= {"overall": row.score.overall, "reward": row.score.reward}
    return row._asdict() | numbers | {"missing": row.score.missing or None}  # the schema leaves the score itself out


@dataclass(frozen=True)
class ScoreParts:
    """The parts of a table that is being written."""

    output: Path
    """The table's path."""
    facts: dict[str, Any]
    """What the scores depend on; parts with other facts are never mixed with these."""
    axes: tuple[str, ...]
    """The judge's axes."""

    @property
    def folder(self) -> Path:
        """The folder of the parts, beside the table."""
        return self.output.with_name(f"{self.output.name}.parts")

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Lock the folder of the parts within the block; it is created if it does not exist.

        Raises:
            EditLoopError: The folder cannot be written, another call holds its lock, or it has parts of another model,
                input or setting.
        """
        with ExitStack() as held:
            try:
                held.enter_context(
                    locked_folder(self.folder, "table.json", self.facts, *_mismatch(self.folder, self.output))
                )
            except OSError as error:
                raise EditLoopError(f"--out {self.output}: cannot be written there ({error.strerror}).") from None
            yield

    def path(self, part: int) -> Path:
        """Return the path of a part's file; the file exists once the part is complete.

        Args:
            part: Number of the part, from 0.
        """
        return self.folder / f"part-{part:06d}.parquet"

    def write(self, part: int, rows: Sequence[ScoredEdit]) -> None:
        """Write a part atomically.

        Args:
            part: Number of the part, from 0.
            rows: Its scored edits.
        """
        temporary = self.path(part).with_suffix(".partial")
        table = pa.Table.from_pylist([_columns(row) for row in rows], schema=score_schema(self.axes))
        parquet.write_table(table, temporary)
        temporary.replace(self.path(part))

    def join(self, parts: int, summary: dict[str, Any]) -> None:
        """Write the table from all parts, with GROUP_ROWS rows in memory at a time, and remove the folder of the parts.

        A row group of the table holds many parts: its reader holds what each row group says of its columns.

        Args:
            parts: Number of parts.
            summary: Facts to add to the table's metadata.
        """
        temporary = self.folder / "table.partial"
        facts = json.dumps(self.facts | summary, sort_keys=True).encode()
        with parquet.ParquetWriter(temporary, score_schema(self.axes).with_metadata({FACTS_KEY: facts})) as writer:
            tables: list[pa.Table] = []
            for part in range(parts):
                with parquet.ParquetFile(self.path(part)) as file:
                    tables.append(file.read())
                if sum(table.num_rows for table in tables) >= GROUP_ROWS or part + 1 == parts:
                    writer.write_table(pa.concat_tables(tables))
                    tables = []
        os.replace(temporary, self.output)
        shutil.rmtree(self.folder)


def read_facts(path: Path) -> dict[str, Any]:
    """Read the facts in the metadata of a table of scores: model, version, axes, input_sha256, settings and counts.

    Args:
        path: The table.

    Raises:
        EditLoopError: The file cannot be read or is not a table of scores.
    """
    try:
        if kind := path_kind(path):
            raise EditLoopError(f"{path}: {kind}, no table of scores; choose another file.")
        metadata = parquet.read_schema(path).metadata or {}
        facts: dict[str, Any] = json.loads(metadata[FACTS_KEY])
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, RecursionError):
        raise EditLoopError(f"{path}: is there and no table of scores; choose another --out.") from None
    return facts


def finished_facts(output: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """Read the facts of a table that is already complete.

    Args:
        output: The table's path.
        facts: What its scores must depend on.

    Returns:
        All facts of the table; None if there is no file.

    Raises:
        EditLoopError: The file is not a table of scores, or its scores depend on something else.
    """
    if not output.exists():
        return None
    table_facts = read_facts(output)
    check_facts(table_facts, facts, *_mismatch(output, output))
    return table_facts


def _mismatch(path: Path, output: Path) -> tuple[str, str]:
    """What `check_facts` says of a table, or of the folder of its parts, that belongs to other scores."""
    return f"{path} holds scores", f"give another --out than {output}, or remove {path}"

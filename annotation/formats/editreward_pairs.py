"""Readers of EditReward's preference pairs (arXiv 2509.26346), as they are published and as the trainer reads them.

The published data set is parquet files, a pair a row, with the three images inside: `instruction`, `source_img`,
`left_output_image` and `right_output_image`, each side's model and float scores, and `vote_type`. The trainer's rows
are a JSON list or JSON lines, with paths relative to the file:

    {"prompt": ..., "path_src": ..., "path1": preferred, "path2": ..., "model1": ..., "model2": ...,
     "model1_dim1_score": 1..4, "model1_dim2_score": 1..4, "model1_overall_score": 2..8, the same of model2,
     "tie_case": bool, "choice_dist": null | [for path1, for path2], "confidence": null | 0..1}

Dimension 1 is instruction following, dimension 2 is visual quality, and overall is their sum. An overall tie whose axes
disagree takes two of the trainer's rows, each image preferred once; a tie on both axes takes one row without an order.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editloop.data.edits_file import picture_path_fault, stated_path
from editloop.data.json_rows import read_json_rows, row_faults
from editloop.data.picture_file import first_line
from editloop.data.row_import import EncodedPicture
from editloop.errors import EditLoopError

ROWS_READ = 8
"""Rows of a parquet file in memory at once: 24 images of a few megabytes."""
SIDES = ("left", "right")
VOTES = {"leftvote": 1, "rightvote": -1, "tie": 0}
"""Values of `vote_type`, and the sign of left minus right."""
PARQUET_COLUMNS = (
    "instruction",
    "source_img",
    "vote_type",
    *(
        f"{side}_{name}"
        for side in SIDES
        for name in (
            "output_image",
            "model",
            "overall_score",
            "instruction_following_score",
            "quality_aesthetic_score",
        )
    ),
)
PARQUET_FILES = "*.parquet"

Score = Annotated[int, Field(ge=1, le=4)]
Ratings = tuple[int, int]
"""Instruction following and visual quality, each 1..4."""


class RatedEdit(NamedTuple):
    """One side of a pair."""

    picture: EncodedPicture
    editor: str
    ratings: Ratings


class RatedPair(NamedTuple):
    """One row: two edits of a source, with their ratings."""

    instruction: str
    source: EncodedPicture
    edits: tuple[RatedEdit, RatedEdit]


class PublicRow(BaseModel):
    """One of the trainer's rows; unknown columns are ignored."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    prompt: Annotated[str, Field(min_length=1)]
    path_src: str
    path1: str
    path2: str
    model1: str
    model2: str
    model1_dim1_score: Score
    model1_dim2_score: Score
    model1_overall_score: int | None = None
    model2_dim1_score: Score
    model2_dim2_score: Score
    model2_overall_score: int | None = None
    tie_case: bool = False
    choice_dist: list[float] | None = None
    confidence: float | None = None

    def ratings(self) -> tuple[Ratings, Ratings]:
        """Return the ratings of path1 and of path2."""
        return ((self.model1_dim1_score, self.model1_dim2_score), (self.model2_dim1_score, self.model2_dim2_score))

    def contradictions(self) -> Iterator[str]:
        """Yield a message for each contradiction within the row."""
        overall = [sum(scores) for scores in self.ratings()]
        for number, stated in ((1, self.model1_overall_score), (2, self.model2_overall_score)):
            if stated is not None and stated != overall[number - 1]:
                yield f"model{number}_overall_score = {stated}: the two scores add up to {overall[number - 1]}"
        if overall[0] < overall[1]:
            yield f"path1 is the preferred one, but its overall is {overall[0]} and path2's {overall[1]}"
        if self.tie_case and overall[0] != overall[1]:
            yield f"tie_case = true, but the overall scores are {overall[0]} and {overall[1]}"


def pair_files(path: Path) -> list[Path]:
    """Return the files of a data set.

    Args:
        path: A file, which is returned alone, or a folder with parquet files at any depth.

    Raises:
        EditLoopError: The folder has no parquet file.
    """
    if not path.is_dir():
        return [path]
    files = sorted(path.rglob(PARQUET_FILES))
    if not files:
        raise EditLoopError(
            f"{path}: holds no {PARQUET_FILES}; give a parquet file, a folder of them, or rows as JSON."
        )
    return files


def count_pairs(files: list[Path]) -> int | None:
    """Return the number of rows, without reading them; None for JSON.

    Args:
        files: The files.

    Raises:
        EditLoopError: A file is no readable parquet file with the columns.
    """
    if not all(file.suffix == ".parquet" for file in files):
        return None
    return sum(_open(file).metadata.num_rows for file in files)


def read_pairs(file: Path, skip: int = 0) -> Iterator[tuple[str, RatedPair | str]]:
    """Yield where each row of a file stands, in order, and the row or what is wrong with it.

    Args:
        file: A parquet file, or the trainer's rows as JSON list or JSON lines.
        skip: Number of rows to leave out at the start.

    Raises:
        EditLoopError: The file is none of these, or cannot be read.
    """
    if file.suffix == ".parquet":
        return _parquet_pairs(file, skip)
    return _json_pairs(file, skip)


def _open(file: Path) -> pq.ParquetFile:
    try:
        opened = pq.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise EditLoopError(f"{file}: no readable parquet file ({first_line(error)}).") from None
    if missing := [name for name in PARQUET_COLUMNS if name not in opened.schema_arrow.names]:
        raise EditLoopError(f"{file}: lacks the columns {', '.join(missing)} of EditReward's published data.")
    return opened


def _parquet_pairs(file: Path, skip: int) -> Iterator[tuple[str, RatedPair | str]]:
    opened, start = _open(file), 0
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if start + rows > skip:
            try:
                for batch in opened.iter_batches(ROWS_READ, row_groups=[group], columns=list(PARQUET_COLUMNS)):
                    for place, row in enumerate(batch.to_pylist()):
                        if start + place >= skip:
                            yield f"row {start + place + 1}", _pair_of_columns(row)
                    start += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                raise EditLoopError(f"{file}: row group {group} cannot be read ({first_line(error)}).") from None
        else:
            start += rows


def _pair_of_columns(row: dict[str, Any]) -> RatedPair | str:
    """Return the pair of a published row, or its first fault."""
    if not (row["instruction"] or "").strip():
        return "instruction: empty"
    source = _cell_picture(row["source_img"])
    edits = []
    for side in SIDES:
        scores = [row[f"{side}_{name}_score"] for name in ("instruction_following", "quality_aesthetic")]
        if not all(score in (1, 2, 3, 4) for score in scores):
            return f"{side} scores {scores}: each is 1, 2, 3 or 4"
        if (overall := row[f"{side}_overall_score"]) is not None and overall != sum(scores):
            return f"{side}_overall_score = {overall:g}: the two scores add up to {sum(scores):g}"
        picture = _cell_picture(row[f"{side}_output_image"])
        if picture is None:
            return f"{side}_output_image: no picture"
        edits.append(RatedEdit(picture, row[f"{side}_model"] or "unknown", (int(scores[0]), int(scores[1]))))
    if source is None:
        return "source_img: no picture"
    if row["vote_type"] not in VOTES:
        return f"vote_type = {row['vote_type']!r}: one of {', '.join(VOTES)}"
    margin = sum(edits[0].ratings) - sum(edits[1].ratings)
    if VOTES[row["vote_type"]] != (margin > 0) - (margin < 0):
        return f"vote_type = {row['vote_type']}, but the overall scores are {sum(edits[0].ratings)} and " + str(
            sum(edits[1].ratings)
        )
    return RatedPair(row["instruction"].strip(), source, (edits[0], edits[1]))


def _cell_picture(cell: dict[str, Any] | None) -> bytes | None:
    return (cell or {}).get("bytes") or None


def _json_pairs(file: Path, skip: int) -> Iterator[tuple[str, RatedPair | str]]:
    for place, row in islice(read_json_rows(file), skip, None):
        yield place, row if isinstance(row, str) else _pair_of_json(file.parent, row)


def _pair_of_json(folder: Path, value: Any) -> RatedPair | str:
    try:
        row = PublicRow.model_validate(value)
    except ValidationError as error:
        return row_faults(error)
    if contradictions := list(row.contradictions()):
        return "; ".join(contradictions)
    paths = []
    for key, name in (("path_src", row.path_src), ("path1", row.path1), ("path2", row.path2)):
        if fault := picture_path_fault(folder, name):
            return f"{key}: {name!r}: {fault}"
        paths.append(stated_path(folder, name))
    first, second = row.ratings()
    edits = (RatedEdit(paths[1], row.model1, first), RatedEdit(paths[2], row.model2, second))
    return RatedPair(row.prompt, paths[0], edits)

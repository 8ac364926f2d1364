"""Exports of judgements in EditReward's formats: rows that its trainer reads, and parquet as its data is published.

`editreward_pairs` describes both formats and reads them. Neither names the raters.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.formats.editreward_pairs import PARQUET_COLUMNS, SIDES, VOTES
from annotation.formats.rated_pairs import CandidatePair, ExportReport, PairRatings, picture_path, rated_pairs
from editloop.content import complete_folder
from editloop.data.vocabulary import Candidate, EditTask, Judgement
from editloop.datasets.hub_folder import PICTURE, picture_schema
from editloop.datasets.shards import MEGABYTES
from editloop.progress import track

ROWS_A_GROUP, BYTES_A_GROUP = 100, 32 * 2**20
"""A row group ends after the row that reaches a limit; it is what a reader holds in memory."""
VOTE_OF_SIGN = {sign: vote for vote, sign in VOTES.items()}
COLUMNS = {
    name: PICTURE if name.endswith(("_img", "_image")) else pa.float32() if name.endswith("_score") else pa.string()
    for name in PARQUET_COLUMNS
}


def export_rows(
    judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path, output: Path
) -> ExportReport:
    """Export judgements as the trainer's rows: `output`/rows.jsonl and its images.

    A row is one annotator's order of two candidates of a task; ties are as in the format's description. Where several
    annotators rated both candidates, `choice_dist` counts how many prefer each, and `confidence` is the share of all
    of them who prefer this row's path1. With one annotator both are null.

    Args:
        judgements: The judgements to export.
        tasks: Tasks of the candidates folder. Judgements of other candidates are left out and counted.
        candidates: The candidates folder, which holds the images.
        output: Folder to write.

    Returns:
        The number of rows, and what was left out.

    Raises:
        EditLoopError: A judged task is not in `tasks`, or an image is missing.
    """
    left_out: Counter[str] = Counter()
    facts = {"rows": 0}
    with complete_folder(output, facts) as folder:
        (folder / "images").mkdir()
        with (folder / "rows.jsonl").open("w", encoding="utf-8") as lines:
            for pair in track(rated_pairs(judgements, tasks, candidates, left_out), "pairs written"):
                for image in {pair.task.source, pair.a.image, pair.b.image}:
                    if not (copy := folder / "images" / f"{image}.png").exists():
                        shutil.copyfile(picture_path(candidates, image), copy)
                for who in pair.ratings:
                    for row in _rows(pair.task, pair.a, pair.b, pair.ratings, who):
                        lines.write(json.dumps(row, ensure_ascii=False) + "\n")
                        facts["rows"] += 1
    return ExportReport(facts["rows"], dict(left_out))


def export_parquet(
    judgements: Sequence[Judgement], tasks: Sequence[EditTask], candidates: Path, output: Path
) -> ExportReport:
    """Export judgements as EditReward's data is published: `output`/train-00000.parquet, .., with the images inside.

    A row is one annotator's ratings of two candidates of a task. Importing the folder gives the same tasks, candidates
    and ratings, by the raters that the import makes up. One row group at a time is in memory.

    Args:
        judgements: The judgements to export.
        tasks: Tasks of the candidates folder. Judgements of other candidates are left out and counted.
        candidates: The candidates folder, which holds the images.
        output: Folder to write.

    Returns:
        The number of rows, and what was left out.

    Raises:
        EditLoopError: A judged task is not in `tasks`, or an image is missing.
    """
    left_out: Counter[str] = Counter()
    facts = {"rows": 0}
    with complete_folder(output, facts) as folder, _ParquetWriter(folder) as writer:
        for pair in track(rated_pairs(judgements, tasks, candidates, left_out), "pairs written"):
            for row in _published_rows(pair, candidates):
                writer.add(row)
                facts["rows"] += 1
    return ExportReport(facts["rows"], dict(left_out))


class _ParquetWriter:
    """Writes rows in row groups and files of bounded size."""

    def __init__(self, folder: Path):
        self._folder, self._schema = folder, picture_schema(COLUMNS)
        self._rows: list[dict[str, Any]] = []
        self._files = self._waiting = self._size = 0
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "_ParquetWriter":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        if error is None:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        self._waiting += sum(len(row[name]["bytes"]) for name, kind in COLUMNS.items() if kind == PICTURE)
        if len(self._rows) == ROWS_A_GROUP or self._waiting >= BYTES_A_GROUP:
            self._flush()

    def _flush(self) -> None:
        """Write what is waiting; the first call opens a file, so that no rows are an empty file."""
        if self._writer is None or self._size >= MEGABYTES * 2**20:
            if self._writer is not None:
                self._writer.close()
            self._writer = pq.ParquetWriter(self._folder / f"train-{self._files:05d}.parquet", self._schema)
            self._files, self._size = self._files + 1, 0
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._size += self._waiting
        self._rows, self._waiting = [], 0


def _published_rows(pair: CandidatePair, candidates: Path) -> Iterator[dict[str, Any]]:
    """Yield a row for each annotator of a pair; a is on the left."""
    source, *edits = (
        {"bytes": picture_path(candidates, image).read_bytes(), "path": None}
        for image in (pair.task.source, pair.a.image, pair.b.image)
    )
    for ratings in pair.ratings.values():
        margin = sum(ratings[0]) - sum(ratings[1])
        row: dict[str, Any] = {
            "instruction": pair.task.instruction,
            "source_img": source,
            "vote_type": VOTE_OF_SIGN[(margin > 0) - (margin < 0)],
        }
        for side, edit, candidate, rating in zip(SIDES, edits, (pair.a, pair.b), ratings, strict=True):
            row |= {
                f"{side}_output_image": edit,
                f"{side}_model": candidate.editor,
                f"{side}_overall_score": float(sum(rating)),
                f"{side}_instruction_following_score": float(rating[0]),
                f"{side}_quality_aesthetic_score": float(rating[1]),
            }
        yield row


def _rows(task: EditTask, a: Candidate, b: Candidate, pair_ratings: PairRatings, who: str) -> list[dict[str, Any]]:
    """Return one annotator's rows of a pair: one, or two for a tie whose axes disagree."""
    of_a, of_b = pair_ratings[who]
    margin = sum(of_a) - sum(of_b)
    sides = [(a, b, of_a, of_b)] if margin >= 0 else [(b, a, of_b, of_a)]
    if margin == 0 and of_a != of_b:
        sides.append((b, a, of_b, of_a))
    differences = [sum(x) - sum(y) for x, y in pair_ratings.values()]
    votes = [sum(difference > 0 for difference in differences), sum(difference < 0 for difference in differences)]
    rows = []
    for better, worse, high, low in sides:
        side_votes = votes if better is a else votes[::-1]
        several = len(pair_ratings) > 1
        rows.append(
            {
                "prompt": task.instruction,
                "choice_dist": side_votes if several else None,
                "confidence": side_votes[0] / len(pair_ratings) if several else None,
                "path_src": f"images/{task.source}.png",
                "path1": f"images/{better.image}.png",
                "path2": f"images/{worse.image}.png",
                "model1": better.editor,
                "model2": worse.editor,
                "model1_dim1_score": high[0],
                "model1_dim2_score": high[1],
                "model1_overall_score": sum(high),
                "model2_dim1_score": low[0],
                "model2_dim2_score": low[1],
                "model2_overall_score": sum(low),
                "tie_case": margin == 0,
            }
        )
    return rows

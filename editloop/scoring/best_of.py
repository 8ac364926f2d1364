"""Best-of-N selection (test-time scaling): keep each task's highest-scored candidate in a folder of edits."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as parquet

from editloop.content import complete_folder, sha256_file
from editloop.data.edits_stream import stream_edits
from editloop.errors import EditLoopError
from editloop.scoring.score_table import read_facts


class BestOfCounts(NamedTuple):
    """Number of tasks kept and left out by `keep_best`."""

    tasks: int
    """Tasks whose best candidate was kept."""
    without: int
    """Tasks left out: they have no candidate, or none with a score."""


def keep_best(source: Path, scores: Path, best_of: int, folder: Path) -> BestOfCounts:
    """Write the best of each task's first `best_of` candidates to `folder`.

    The candidate with the highest `overall` wins; on a tie, the earlier one. The folder holds `edits.jsonl`, with one
    candidate a row and the row's `id` unchanged, and `images/`, with each image named by its sha256.

    Args:
        source: The edits file, or the folder of edits files, that was scored.
        scores: The table of scores of `source`, made with the same `best_of`.
        best_of: Number of candidates of each task to choose from.
        folder: The folder to write; an existing one is replaced.

    Returns:
        How many tasks were kept, and how many left out.

    Raises:
        EditLoopError: An image to keep cannot be read any more, or `scores` belongs to other edits.
    """
    rows = _rows(scores)
    task_count = skipped_count = 0
    facts: dict[str, Any] = {"scores_sha256": sha256_file(scores), **read_facts(scores)}
    with complete_folder(folder, facts) as out:
        (out / "images").mkdir()
        with (out / "edits.jsonl").open("w") as stream:
            for task in stream_edits(source):
                task_rows = [next(rows) for _ in task.candidates[:best_of]]
                if any(row["id"] != task.id for row in task_rows):
                    raise EditLoopError(f"{scores}: its rows are not those of {source}; score it again.")
                scored = [row for row in task_rows if row["overall"] is not None]
                if not scored:
                    skipped_count += 1
                    continue
                best = max(scored, key=lambda row: row["overall"])
                line: dict[str, Any] = {
                    "id": task.id,
                    "instruction": task.instruction,
                    "source": copy_picture(task.source, out),
                    "task": task.task,
                    "candidates": [
                        {"image": copy_picture(task.candidates[best["candidate"]].image, out), "editor": best["editor"]}
                    ],
                }
                if task.references:
                    line["references"] = [copy_picture(reference, out) for reference in task.references]
                if task.target is not None:
                    line["target"] = copy_picture(task.target, out)
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
                task_count += 1
        facts |= {"tasks": task_count, "tasks_without": skipped_count}
    return BestOfCounts(task_count, skipped_count)


def _rows(scores: Path) -> Iterator[dict[str, Any]]:
    with parquet.ParquetFile(scores) as parquet_file:
        for batch in parquet_file.iter_batches(4096, columns=["id", "candidate", "editor", "overall"]):
            yield from batch.to_pylist()


def copy_picture(picture: Path, folder: Path) -> str:
    """Copy an image into `folder`, named by the sha256 of its bytes.

    Args:
        picture: The image file.
        folder: The folder to copy into; it must have a subfolder `images`.

    Returns:
        The copy's path relative to `folder`.

    Raises:
        EditLoopError: The image cannot be read or copied.
    """
    try:
        name = f"images/{sha256_file(picture)}{picture.suffix.lower()}"
        if not (folder / name).exists():
            shutil.copyfile(picture, folder / name)
    except OSError as error:
        raise EditLoopError(f"{picture}: cannot be copied to the kept ones ({error.strerror}).") from None
    return name

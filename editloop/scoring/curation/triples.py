"""Noisy triples of source, instruction and edit, and their scores.

The edits of a row are its candidates. In a set where no row has candidates, the edit of each row is its target.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet

from editloop.content import sha256_file, sha256_json
from editloop.data.edits_stream import stream_edits, survey_edits
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Judge
from editloop.scoring.curation.selection import Values
from editloop.scoring.score_file import ScoringSettings, ScoringSummary, score_edits
from editloop.scoring.score_table import read_facts

COLUMNS = ("id", "source_sha256", "image_sha256", "overall", "fused_mean", "fused_sigma")
"""Columns of the table of scores that are read; the last three become the arrays of `ScoredTriples`."""


class Triple(NamedTuple):
    """One noisy edit."""

    id: str
    """Id of its row in the edits file."""
    task: str
    """Kind of edit."""
    instruction: str
    source: Path
    image: Path
    editor: str
    references: tuple[Path, ...] = ()


class ScoredTriples(NamedTuple):
    """All triples of a set, in its order, with their scores."""

    triples: list[Triple]
    names: list[tuple[str, str]]
    """(task, edit) of each triple, as digests of content: the same sources and instruction are one task."""
    overall: Values
    """(N,), NaN where the score is missing."""
    mean: Values
    """(N,): means of the judge's fused belief, on the judge's own scale."""
    sigma: Values
    """(N,): standard deviations of that belief, on the same scale."""


def score_triples(judge: Judge, edits: Path, scores: Path, *, most_missing: float = 0.1) -> ScoringSummary:
    """Score every triple of an edits file or folder; a call that was stopped is resumed.

    Args:
        judge: The judge to ask.
        edits: The edits file, or a folder of edits files.
        scores: The parquet file to write.
        most_missing: Largest share of the edits that may have no score, 0..1.

    Returns:
        The numbers of tasks, edits and missing scores.

    Raises:
        EditLoopError: There is nothing to score, or too many scores are missing; see `score_edits`.
    """
    targets = survey_edits(edits).candidates == 0
    return score_edits(judge, edits, scores, ScoringSettings(targets=targets, most_missing=most_missing))


def read_scored(edits: Path, scores: Path) -> ScoredTriples:
    """Read the triples of an edits file or folder with their scores.

    Args:
        edits: The edits file, or a folder of edits files.
        scores: The table that `score_triples` wrote for the same edits.

    Returns:
        The triples and their scores, in the order of the edits.

    Raises:
        EditLoopError: The scores are not those of these edits.
    """
    targets = bool(read_facts(scores).get("targets"))
    table = parquet.read_table(scores, columns=list(COLUMNS))
    triples: list[Triple] = []
    digests = cache(_file_sha256)
    names: list[tuple[str, str]] = []
    rows = iter(table.select(["id", "source_sha256", "image_sha256"]).to_pylist())
    for triple in _triples(edits, targets):
        row = next(rows, None)
        if row is None or row["id"] != triple.id:
            raise EditLoopError(f"{scores}: its rows are not those of {edits}; score it again.")
        triples.append(triple)
        references = [digests(path) for path in triple.references]
        task = sha256_json([row["source_sha256"], triple.instruction, *references])
        names.append((task, str(row["image_sha256"])))
    numbers = (np.array(table[name].to_pylist(), dtype=np.float64) for name in COLUMNS[3:])
    return ScoredTriples(triples, names, *numbers)


def _file_sha256(path: Path) -> str | None:
    """Return the digest of a file's bytes; None where it cannot be read, as the table says of a source."""
    try:
        return sha256_file(path)
    except OSError:
        return None


def _triples(edits: Path, targets: bool) -> Iterator[Triple]:
    for row in stream_edits(edits, targets=targets):
        for candidate in row.candidates:
            yield Triple(
                row.id, row.task, row.instruction, row.source, candidate.image, candidate.editor, row.references
            )

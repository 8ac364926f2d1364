"""Noisy triples of source, instruction and edit, and their scores.

A row's candidates are its edits; in a set where no row has any, each row's target is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet

from editloop.content import sha256_json
from editloop.data.edits_stream import stream_edits, survey_edits
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Judge
from editloop.scoring.curation.selection import Values
from editloop.scoring.score_file import ScoringSettings, ScoringSummary, score_edits
from editloop.scoring.score_table import read_facts

COLUMNS = ("id", "source_sha256", "image_sha256", "overall", "fused_mean", "fused_sigma")


class Triple(NamedTuple):
    """A noisy edit and what the judge says of it."""

    id: str
    """Of its row."""
    task: str
    """Kind of edit."""
    instruction: str
    source: Path
    image: Path
    editor: str


class ScoredTriples(NamedTuple):
    """All triples of a set, in its order, and their scores on the scale of `overall`."""

    triples: list[Triple]
    names: list[tuple[str, str]]
    """(task, edit) of each, digests of content: the same source and instruction are one task."""
    overall: Values
    """(N,), NaN where the score is missing."""
    mean: Values
    """(N,): the judge's belief in the fused score, on its own scale."""
    sigma: Values


def score_triples(judge: Judge, edits: Path, scores: Path, *, most_missing: float = 0.1) -> ScoringSummary:
    """Score every triple of an edits folder or file into the parquet file `scores`; a stopped call is gone on with.

    Raises EditLoopError where there is nothing to score or too many scores are missing, as `score_edits` does.
    """
    targets = survey_edits(edits).candidates == 0
    return score_edits(judge, edits, scores, ScoringSettings(targets=targets, most_missing=most_missing))


def read_scored(edits: Path, scores: Path) -> ScoredTriples:
    """The triples with their scores, by `score_triples` of the same edits. EditLoopError where these are of others."""
    targets = bool(read_facts(scores).get("targets"))
    table = parquet.read_table(scores, columns=list(COLUMNS))
    triples: list[Triple] = []
    names: list[tuple[str, str]] = []
    rows = iter(table.select(["id", "source_sha256", "image_sha256"]).to_pylist())
    for triple in _triples(edits, targets):
        row = next(rows, None)
        if row is None or row["id"] != triple.id:
            raise EditLoopError(f"{scores}: its rows are not those of {edits}; score it again.")
        triples.append(triple)
        names.append((sha256_json([row["source_sha256"], triple.instruction]), str(row["image_sha256"])))
    numbers = (np.array(table[name].to_pylist(), dtype=np.float64) for name in COLUMNS[3:])
    return ScoredTriples(triples, names, *numbers)


def _triples(edits: Path, targets: bool) -> Iterator[Triple]:
    for row in stream_edits(edits, targets=targets):
        for candidate in row.candidates:
            yield Triple(row.id, row.task, row.instruction, row.source, candidate.image, candidate.editor)

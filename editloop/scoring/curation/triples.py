"""Noisy triples of source, instruction and edit, and their scores.

The edits of a row are its candidates. In a set where no row has candidates, the edit of each row is its target.
"""

import hashlib
from collections.abc import Iterator
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as parquet

from editloop.content import sha256_file, sha256_json
from editloop.data.edits_stream import stream_edits, survey_edits
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import Judge
from editloop.scoring.curation.selection import EditNames, Values
from editloop.scoring.score_file import ScoringSettings, ScoringSummary, score_edits
from editloop.scoring.score_table import read_facts

NUMBERS = ("overall", "fused_mean", "fused_sigma")
"""Columns of the table of scores that become the arrays of `ScoredTriples`."""
COLUMNS = ("id", "source_sha256", "image_sha256", *NUMBERS)
DIGEST_BYTES = 32
ROWS_READ = 4096
"""Rows of the table that are held at a time."""


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
    """The scores of all N triples of a set, in its order. The triples themselves are read again where they are needed,
    for a set may have millions."""

    edits: Path
    """The edits file, or a folder of edits files."""
    targets: bool
    """Whether the edit of a row is its target."""
    sha256: str
    """Of the triples, in order."""
    names: EditNames
    overall: Values
    """(N,), NaN where the score is missing."""
    mean: Values
    """(N,): means of the judge's fused belief, on the judge's own scale."""
    sigma: Values
    """(N,): standard deviations of that belief, on the same scale."""

    def read_triples(self) -> Iterator[Triple]:
        """Yield the triples.

        Raises:
            EditLoopError: The edits changed since their scores were read. It comes after the last of them.
        """
        digest = hashlib.sha256()
        for triple in _triples(self.edits, self.targets):
            digest.update(repr(triple).encode())
            yield triple
        if digest.hexdigest() != self.sha256:
            raise EditLoopError(f"{self.edits}: changed while its best edits were chosen; run it again.")


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
    """Read the scores of an edits file or folder, in about 100 bytes of memory an edit.

    Args:
        edits: The edits file, or a folder of edits files.
        scores: The table that `score_triples` wrote for the same edits.

    Returns:
        The scores, in the order of the edits.

    Raises:
        EditLoopError: The scores are not those of these edits.
    """
    targets = bool(read_facts(scores).get("targets"))
    digests, digest = cache(_file_sha256), hashlib.sha256()
    with parquet.ParquetFile(scores) as table:
        count = table.metadata.num_rows
        names = EditNames(*(np.zeros((count, DIGEST_BYTES), np.uint8) for _ in EditNames._fields))
        numbers = np.full((len(NUMBERS), count), np.nan)
        rows = (row for batch in table.iter_batches(ROWS_READ, columns=list(COLUMNS)) for row in batch.to_pylist())
        for place, (triple, row) in enumerate(zip_longest(_triples(edits, targets), rows)):
            if triple is None or row is None or row["id"] != triple.id:
                raise EditLoopError(f"{scores}: its rows are not those of {edits}; score it again.")
            digest.update(repr(triple).encode())
            task = [row["source_sha256"], triple.instruction, *map(digests, triple.references)]
            names.tasks[place] = np.frombuffer(bytes.fromhex(sha256_json(task)), np.uint8)
            if row["image_sha256"] is not None:
                names.edits[place] = np.frombuffer(bytes.fromhex(row["image_sha256"]), np.uint8)
            numbers[:, place] = [np.nan if row[name] is None else row[name] for name in NUMBERS]
    return ScoredTriples(edits, targets, digest.hexdigest(), names, *numbers)


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

"""`editloop score`: score any number of edits in bounded memory and write one table.

A part of the table holds a fixed number of the input's tasks, whatever was done before, and a batch never spans two
parts. A resumed call therefore goes on with the next part and writes the same file as a call that was not stopped.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow.parquet as parquet
from pydantic import Field

from editloop.data.edits_file import EditRow
from editloop.data.edits_stream import stream_edits, survey_edits
from editloop.data.picture_file import load_image, picture_sha256
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import EditGroup, Judge, Picture, Score, wording_of
from editloop.scoring.chunks import score_in_chunks
from editloop.scoring.resuming import scoring_progress
from editloop.scoring.score_table import ScoredEdit, ScoreParts, finished_facts
from editloop.scoring.validation import validate_scores
from editloop.settings_file import FrozenModel

Element = TypeVar("Element")


class ScoringSettings(FrozenModel):
    """How edits are scored."""

    best_of: int | None = Field(None, ge=1)
    """Score only the first `best_of` candidates of each task; null for all."""
    targets: bool = False
    """Score each row's target instead of its candidates, for a set of noisy triples."""
    most_missing: float = Field(0.1, ge=0, le=1)
    """Largest share of edits that may have no score; beyond it the call ends with an error."""
    batch_edits: int = Field(64, ge=1)
    """Edits that the judge is given at once; it may divide them further."""
    batch_megapixels: int = Field(64, ge=1)
    """Decoded pixels of a batch in millions, 3 MB each; a larger task is divided."""
    part_tasks: int = Field(32, ge=1)
    """Tasks per part: the most work that a killed call can lose."""


class ScoringSummary(NamedTuple):
    """Counts of a scored edits file."""

    tasks: int
    edits: int
    missing: int
    """Edits without a score."""
    reasons: dict[str, int]
    """Number of missing scores by reason, the commonest first."""


class ScoringBatch(NamedTuple):
    """Edits of one part that are judged together, and the edits between them whose images cannot be read."""

    part: int
    last: bool
    """Whether this is the last batch of its part."""
    rows: list[ScoredEdit]
    """In the input's order; the score of an edit that cannot be read is already missing, with the reason."""
    groups: list[EditGroup]
    places: list[int]
    """Index in `rows` of each edit of `groups`, in their order."""


class FinishedPart(NamedTuple):
    """A part that an earlier call completed."""

    part: int
    missing: list[str | None]
    """For each edit, the reason why it has no score; None if it has one."""


class PictureRead(NamedTuple):
    """An image file after an attempt to read it."""

    sha256: str | None
    """Identity of the pixels; None if the image cannot be decoded."""
    picture: Picture | None
    """The pixels; None if the image cannot be decoded."""
    fault: str
    """Why the image cannot be read; empty if it can."""


def score_edits(judge: Judge, source: Path, output: Path, settings: ScoringSettings) -> ScoringSummary:
    """Score the candidates of an edits file, or of a folder of them, and write a table with one row per edit.

    A call that was stopped is resumed; if the table is already complete, nothing is scored.

    Args:
        judge: The judge to ask.
        source: The edits file, or a folder of edits files.
        output: The parquet file to write.
        settings: What to score, in what batches, and how many scores may be missing.

    Returns:
        The numbers of tasks, edits and missing scores.

    Raises:
        EditLoopError: The input has faulty lines or no edits; `output` or its parts belong to another model, input or
            setting; or too many scores are missing.
        JudgeUnavailableError: The judge cannot be reached. Completed parts are kept.

    Examples:
        >>> import editloop
        >>> from pathlib import Path
        >>> judge = editloop.open_judge("tiny-reward", device="cpu")
        >>> settings = editloop.ScoringSettings(targets=True)
        >>> summary = editloop.score_edits(judge, Path("edits/edits.jsonl"), Path("scores.parquet"), settings)
        >>> summary.edits, summary.missing
        (3, 0)
    """
    survey = survey_edits(source, settings.best_of, targets=settings.targets)
    if survey.candidates == 0:
        raise EditLoopError(f"{source}: {survey.tasks} rows and no candidates; `candidates` hold the edits to score.")
    facts = {
        "model": judge.name,
        "version": judge.version,
        "axes": list(judge.axes),
        "input_sha256": survey.sha256,
        "best_of": settings.best_of,
        "part_tasks": settings.part_tasks,
        **({"targets": True} if settings.targets else {}),
    }
    if finished_table := finished_facts(output, facts):
        return ScoringSummary(
            survey.tasks, finished_table["edits"], finished_table["missing"], finished_table["reasons"]
        )
    parts = ScoreParts(output, facts, judge.axes)
    reasons: Counter[str] = Counter()
    with parts.opened(), scoring_progress() as progress:
        bar = progress.add_task("edits scored", total=survey.candidates, missing=0)
        rows: list[ScoredEdit] = []
        count = 0
        for piece in read_ahead(_pieces(parts, source, settings)):
            if isinstance(piece, FinishedPart):
                reasons.update(reason for reason in piece.missing if reason)
                progress.update(bar, advance=len(piece.missing), missing=reasons.total())
            else:
                scored_rows = _scored_rows(judge, piece)
                rows += scored_rows
                reasons.update(row.score.missing for row in scored_rows if row.score.missing)
                progress.update(bar, advance=len(scored_rows), missing=reasons.total())
                if piece.last:
                    parts.write(piece.part, rows)
                    rows = []
            count = piece.part + 1
            _check_missing(reasons, survey.candidates, settings)
        reason_counts = dict(reasons.most_common())
        summary = ScoringSummary(survey.tasks, survey.candidates, reasons.total(), reason_counts)
        wording = wording_of(judge)
        parts.join(count, summary._asdict() | {"wording": wording and wording._asdict()})
    return summary


def read_ahead(elements: Iterator[Element]) -> Iterator[Element]:
    """Yield the elements, and produce each in a thread while the one before is in use.

    Args:
        elements: The iterator to read from; None ends it.
    """
    with ThreadPoolExecutor(1, "read") as pool:
        future = pool.submit(next, elements, None)
        while (element := future.result()) is not None:
            future = pool.submit(next, elements, None)
            yield element


def _check_missing(reasons: Counter[str], edits: int, settings: ScoringSettings) -> None:
    if reasons.total() > settings.most_missing * edits:
        commonest = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
        raise EditLoopError(
            f"{reasons.total()} of {edits} edits have no score, more than the share of {settings.most_missing:g} that "
            f"--most-missing allows: {commonest}. Mend them or allow more; the scores so far are kept."
        )


def _pieces(parts: ScoreParts, source: Path, settings: ScoringSettings) -> Iterator[ScoringBatch | FinishedPart]:
    root = source if source.is_dir() else source.parent
    tasks = stream_edits(source, targets=settings.targets)
    part = 0
    while part_tasks := list(islice(tasks, settings.part_tasks)):
        missing_reasons = _missing_reasons(parts.path(part), part_tasks, settings.best_of)
        if missing_reasons is None:
            yield from _batches(part, part_tasks, root, settings)
        else:
            yield FinishedPart(part, missing_reasons)
        part += 1


def _missing_reasons(path: Path, tasks: Sequence[EditRow], best_of: int | None) -> list[str | None] | None:
    """Return why each edit of a complete part has no score (None for an edit with one).

    The result is None, so that the part is scored again, if the part does not exist or an image changed since.
    """
    if not path.is_file():
        return None
    rows = parquet.read_table(path, columns=["source_sha256", "image_sha256", "missing"]).to_pylist()
    written = path.stat().st_mtime_ns
    pictures = [(task, candidate.image) for task in tasks for candidate in task.candidates[:best_of]]
    for row, (task, image) in zip(rows, pictures, strict=True):
        if _changed(task.source, row["source_sha256"], written) or _changed(image, row["image_sha256"], written):
            return None
        if any(_changed(reference, None if row["missing"] else "", written) for reference in task.references):
            return None
    return [row["missing"] for row in rows]


def _changed(path: Path, sha256: str | None, written: int) -> bool:
    """Return whether a file may differ from what was read before `written`; `sha256` is None where it was not read."""
    try:
        return path.stat().st_ctime_ns > written
    except OSError:
        return sha256 is not None


def _batches(part: int, tasks: Sequence[EditRow], root: Path, settings: ScoringSettings) -> Iterator[ScoringBatch]:
    """Yield a part's edits with their images; a task that is too large for a batch becomes several groups."""
    rows: list[ScoredEdit] = []
    groups: list[EditGroup] = []
    row_indices: list[int] = []
    pixels = 0
    for task in tasks:
        candidates = task.candidates[: settings.best_of]
        source = _read(task.source) if candidates else PictureRead(None, None, "")
        references = [_read(reference) for reference in task.references] if candidates else []
        sources = {"source": source} | {f"references[{k}]": reference for k, reference in enumerate(references)}
        sources_fault = next((f"{name}: {read.fault}" for name, read in sources.items() if read.fault), "")
        group: list[Picture] = []
        for index, candidate in enumerate(candidates):
            edit = _read(candidate.image)
            fault = sources_fault or (f"image: {edit.fault}" if edit.fault else "")
            image = candidate.image.relative_to(root).as_posix()
            rows.append(
                ScoredEdit(task.id, index, image, candidate.editor, source.sha256, edit.sha256, Score(missing=fault))
            )
            further = [read.picture for read in references if read.picture is not None]
            if source.picture is None or edit.picture is None or len(further) != len(references):
                continue
            if not group:
                groups.append(EditGroup(task.instruction, source.picture, group, task.id, further))
                pixels += sum(picture[..., 0].size for picture in (source.picture, *further))
            group.append(edit.picture)
            row_indices.append(len(rows) - 1)
            pixels += edit.picture[..., 0].size
            if len(row_indices) >= settings.batch_edits or pixels >= settings.batch_megapixels * 1_000_000:
                yield ScoringBatch(part, False, rows, groups, row_indices)
                rows, groups, row_indices, pixels, group = [], [], [], 0, []
    yield ScoringBatch(part, True, rows, groups, row_indices)


def _read(path: Path) -> PictureRead:
    """Read an image's identity and pixels, or find what is wrong with it.

    The fault names no path, so that equal faults are counted together.
    """
    try:
        picture = np.asarray(load_image(path))
    except EditLoopError as error:
        return PictureRead(None, None, str(error).removeprefix(str(EditLoopError(f"{path}: "))))
    return PictureRead(picture_sha256(picture), picture, "")


def _scored_rows(judge: Judge, batch: ScoringBatch) -> list[ScoredEdit]:
    rows = list(batch.rows)
    for index, score in zip(batch.places, score_in_chunks(judge, batch.groups), strict=True):
        rows[index] = rows[index]._replace(score=validate_scores(score, judge.axes))
    return rows

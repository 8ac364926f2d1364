"""Import of EditReward's preference pairs as a candidates and a judgements folder (see `editloop.data.row_import`)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from annotation.formats.editreward_pairs import RatedPair, Ratings, count_pairs, pair_files, read_pairs
from annotation.formats.import_folders import ImportReport, write_import
from annotation.formats.judgements_folder import ImportedData
from annotation.formats.ratings_table import UNKNOWN_TIME
from editloop.data.edits_file import LONGEST_INSTRUCTION
from editloop.data.row_import import PictureStore, RowImport
from editloop.data.vocabulary import Candidate, EditTask, Judgement, candidate_id, task_id

RATER = "editreward"


class _StoredPair(NamedTuple):
    """A row whose images are stored, by their identities."""

    instruction: str
    source: str
    images: tuple[str, str]
    editors: tuple[str, str]
    ratings: tuple[Ratings, Ratings]


def import_pairs(path: Path, candidates: Path, judgements: Path, *, strict: bool = False) -> ImportReport:
    """Import preference pairs.

    Rows do not name their raters. Rows that give one image different scores must come from different people, so each
    row goes to the first of `editreward-1`, `editreward-2`, ... whose earlier ratings of the task it does not
    contradict. Both ratings of a row go to the same rater.

    Args:
        path: A parquet file of the published data set, a folder of them, or the trainer's rows as JSON.
        candidates: Candidates folder to write.
        judgements: Judgements folder to write. Rows that were left out are listed in its `skipped.txt`.
        strict: Refuse rows with faults instead of leaving them out.

    Raises:
        EditLoopError: Nothing can be read, no row is left, or `strict` and some rows have faults. Nothing is written.
    """
    files = pair_files(path)
    total = count_pairs(files)
    rows = RowImport(path, files, candidates)
    results = rows.store_rows(read_pairs, _store_pair, "pairs imported", total)
    stored = [_stored_pair(value) for _, value in results]
    rows.check(len(stored), strict=strict)
    tasks, raters = _tasks(stored)
    imported = list(_judgements(tasks, raters))
    ordered = [tasks[key] for key in sorted(tasks)]
    origin = ImportedData(path.resolve().name, "EditReward's pairs", rows.digests, {})
    write_import(rows, candidates, judgements, ordered, imported, origin, {})
    return ImportReport(len(stored), len(tasks), len(imported), tuple(rows.skipped))


def _store_pair(row: RatedPair, pictures: PictureStore) -> list[Any] | str:
    """Store a row's images; the fields of the stored row, or what is wrong with it."""
    if len(row.instruction) > LONGEST_INSTRUCTION:
        return f"instruction: {len(row.instruction):,} characters; at most {LONGEST_INSTRUCTION:,}"
    named = {"source": row.source, "first": row.edits[0].picture, "second": row.edits[1].picture}
    source, first, second = (pictures.put(picture, name).sha256 for name, picture in named.items())
    if first == second:
        return "both edits are the same picture"
    editors, ratings = ([edit.editor for edit in row.edits], [list(edit.ratings) for edit in row.edits])
    return [row.instruction, source, [first, second], editors, ratings]


def _stored_pair(value: list[Any]) -> _StoredPair:
    instruction, source, images, editors, ((first, second), (third, fourth)) = value
    return _StoredPair(instruction, source, tuple(images), tuple(editors), ((first, second), (third, fourth)))


def _tasks(rows: list[_StoredPair]) -> tuple[dict[str, EditTask], dict[str, list[dict[str, Ratings]]]]:
    """Return the tasks, and of each task every rater's ratings by candidate."""
    tasks: dict[str, EditTask] = {}
    candidates: dict[str, dict[str, Candidate]] = {}
    raters: dict[str, list[dict[str, Ratings]]] = {}
    for row in rows:
        key = task_id(row.source, row.instruction)
        tasks.setdefault(key, EditTask(task_id=key, name=key, instruction=row.instruction, source=row.source))
        row_ratings = {}
        for image, editor, ratings in zip(row.images, row.editors, row.ratings, strict=True):
            candidate = Candidate(candidate_id=candidate_id(key, image), image=image, editor=editor)
            candidates.setdefault(key, {}).setdefault(candidate.candidate_id, candidate)
            row_ratings[candidate.candidate_id] = ratings
        people = raters.setdefault(key, [])
        rater = next((person for person in people if all(person.get(c, r) == r for c, r in row_ratings.items())), None)
        if rater is None:
            people.append(rater := {})
        rater.update(row_ratings)
    for key, by_id in candidates.items():
        tasks[key] = tasks[key].model_copy(update={"candidates": tuple(by_id.values())})
    return tasks, raters


def _judgements(tasks: dict[str, EditTask], raters: dict[str, list[dict[str, Ratings]]]) -> Iterator[Judgement]:
    number = 0
    for key in sorted(tasks):
        positions = {candidate: k for k, candidate in enumerate(sorted(c.candidate_id for c in tasks[key].candidates))}
        for who, ratings in enumerate(raters[key], start=1):
            number += 1
            for candidate in sorted(ratings):
                yield Judgement.model_validate(
                    {
                        "task_id": key,
                        "candidate_id": candidate,
                        "annotator": f"{RATER}-{who}",
                        "if": ratings[candidate][0],
                        "vq": ratings[candidate][1],
                        "position": positions[candidate],
                        "annotation_id": number,
                        "created_at": UNKNOWN_TIME,
                    }
                )

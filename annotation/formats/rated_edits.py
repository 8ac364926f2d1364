"""Tasks, candidates and judgements from rows of elsewhere, which name them in their own way.

A task is its source, its references and its instruction, a candidate is its picture: rows that agree in these are of
one task or candidate, whatever their names. Names are checked against that, and one judgement is kept of a person and a
candidate.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from sys import intern
from typing import NamedTuple

from annotation.formats.ratings_table import UNKNOWN_TIME
from editloop.data.account_name import account_name
from editloop.data.edits_file import printable_json
from editloop.data.vocabulary import Candidate, EditTask, Judgement, candidate_id, task_id

CandidateKey = tuple[str, str]
"""Task id and candidate id."""


class NamedEdit(NamedTuple):
    """An edit as a row of elsewhere names it; its pictures are given by their identities."""

    task: str
    """The team's name of the task; "" where it has none."""
    task_type: str
    instruction: str
    source: str
    candidate: str
    """The team's name of the edit within its task; "" where it has none."""
    image: str
    editor: str
    references: tuple[str, ...] = ()
    """Identities of the reference images, in order."""


class GivenRating(NamedTuple):
    """One person's ratings of one edit."""

    annotator: str
    """The account's name."""
    ratings: tuple[int, int]
    """Instruction following and visual quality, each 1..4."""
    position: int | None
    """Index on the person's page, from 0; None if unknown."""
    seconds: float | None
    created_at: datetime | None


class _Recorded(NamedTuple):
    location: str
    rating: GivenRating


class RatedEdits:
    """The edits and ratings of an import, as its rows come."""

    def __init__(self) -> None:
        """Begin without any."""
        self._tasks: dict[str, EditTask] = {}
        self._candidates: dict[CandidateKey, tuple[str, str, str]] = {}
        """Image, editor, and the location of the first row."""
        self._task_names: dict[str, tuple[str, str]] = {}
        """Task id and location, by the team's name."""
        self._candidate_names: dict[tuple[str, str], tuple[str, str]] = {}
        """Candidate id and location, by task id and the team's name."""
        self._ratings: dict[tuple[str, str, str], _Recorded] = {}

    def add_edit(self, location: str, edit: NamedEdit) -> CandidateKey:
        """Add an edit, which may be there already, and return its key.

        Args:
            location: Where the row stands.
            edit: The edit.

        Raises:
            ValueError: It contradicts an earlier row. Nothing is added; the message is a rule for users.
        """
        key = intern(task_id(edit.source, edit.instruction, edit.references))
        candidate = intern(candidate_id(key, edit.image))
        named = self._task_names.get(edit.task)
        if named and named[0] != key:
            raise ValueError(
                f"task = {printable_json(edit.task)}: has another source, reference or instruction at {named[1]}; "
                "rows of a task agree in these"
            )
        twin = self._candidate_names.get((key, edit.candidate))
        if twin and twin[0] != candidate:
            raise ValueError(
                f"candidate = {printable_json(edit.candidate)}: has another picture at {twin[1]}; a candidate has one"
            )
        recorded = self._candidates.get((key, candidate))
        if recorded and recorded[1] != edit.editor:
            raise ValueError(
                f"editor = {printable_json(edit.editor)}: {printable_json(recorded[1])} at {recorded[2]}, of the same "
                "picture; equal pictures of a task are one candidate"
            )
        if key not in self._tasks:
            self._tasks[key] = EditTask(
                task_id=key,
                name=edit.task or key,
                task_type=edit.task_type,
                instruction=edit.instruction,
                source=edit.source,
                references=edit.references,
            )
        self._candidates.setdefault((key, candidate), (edit.image, edit.editor, location))
        if edit.task:
            self._task_names.setdefault(edit.task, (key, location))
        if edit.candidate:
            self._candidate_names.setdefault((key, edit.candidate), (candidate, location))
        return key, candidate

    def add_rating(self, location: str, key: CandidateKey, rating: GivenRating) -> None:
        """Add a rating of an edit that was added.

        Args:
            location: Where the row stands.
            key: The edit's key.
            rating: The rating.

        Raises:
            ValueError: The person rated the edit before. The message is a rule for users.
        """
        before = self._ratings.get((*key, rating.annotator))
        if before:
            raise ValueError(f"{rating.annotator} rates this picture a second time; the first is at {before.location}")
        self._ratings[(*key, intern(rating.annotator))] = _Recorded(location, rating)

    def tasks(self) -> list[EditTask]:
        """Return the tasks with their candidates, sorted by id."""
        candidates: dict[str, list[Candidate]] = {}
        for (task, candidate), (image, editor, _) in self._candidates.items():
            candidates.setdefault(task, []).append(Candidate(candidate_id=candidate, image=image, editor=editor))
        return [
            self._tasks[key].model_copy(update={"candidates": tuple(candidates[key])}) for key in sorted(self._tasks)
        ]

    def judgements(self) -> list[Judgement]:
        """Return the judgements, sorted by task, candidate and annotator.

        Where the position is unknown, it is the candidate's index among its task's sorted ids; ids are digests, so this
        order is unrelated to quality. The answers of a person on a task count as one page.
        """
        positions = {
            (task.task_id, candidate.candidate_id): number
            for task in self.tasks()
            for number, candidate in enumerate(sorted(task.candidates, key=lambda candidate: candidate.candidate_id))
        }
        pages: dict[tuple[str, str], int] = {}
        return [
            Judgement.model_validate(
                {
                    "task_id": task,
                    "candidate_id": candidate,
                    "annotator": annotator,
                    "if": rating.ratings[0],
                    "vq": rating.ratings[1],
                    "position": positions[task, candidate] if rating.position is None else rating.position,
                    "seconds": rating.seconds,
                    "annotation_id": pages.setdefault((task, annotator), len(pages) + 1),
                    "created_at": rating.created_at or UNKNOWN_TIME,
                }
            )
            for (task, candidate, annotator), (_, rating) in sorted(self._ratings.items())
        ]

    def names(self) -> Iterator[dict[str, str]]:
        """Yield our ids of each name of an edit that the team gave, and the team's name of its task."""
        for (task, name), (candidate, _) in self._candidate_names.items():
            yield {"task": self._tasks[task].name, "candidate": name, "task_id": task, "candidate_id": candidate}


@lru_cache(maxsize=2**16)
def annotator_name(text: str) -> str:
    """Return `account_name` of a person, once for each spelling.

    Args:
        text: The address, name or number of the person's account elsewhere.

    Raises:
        ValueError: It is none.
    """
    return account_name(text)


def in_utc(moment: datetime) -> datetime:
    """Return a moment with a time zone; one without is taken for UTC.

    Args:
        moment: The moment.
    """
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment

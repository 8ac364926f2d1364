"""Votes, from which a dataset's labels are fitted, whichever campaign or file they came from.

A dataset folder stores them as `judgements.jsonl` and `decisions.jsonl`, with the ratings alone. Annotation ids and
times differ between runs of Label Studio, so they stay with the judgements that the votes were read from.
"""

import json
from itertools import pairwise
from pathlib import Path
from sys import intern
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editloop.content import write_file
from editloop.data.vocabulary import HIGHEST_RATING, LOWEST_RATING
from editloop.datasets.withdrawal import Withdrawn
from editloop.errors import EditLoopError

JUDGEMENTS, DECISIONS = "judgements.jsonl", "decisions.jsonl"


class Vote(NamedTuple):
    """One person's ratings of one candidate."""

    task_id: str
    candidate_id: str
    annotator: str
    """Who rated. For a decision, the lead."""
    instruction_following: int
    visual_quality: int


class Votes(NamedTuple):
    """All votes of a folder, sorted by task, candidate and annotator."""

    judged: list[Vote]
    """The annotators' votes."""
    decided: list[Vote]
    """The lead's decisions, which replace the votes on their candidates."""

    def without(self, withdrawn: Withdrawn) -> "Votes":
        """Return the votes without those of withdrawn annotators and on withdrawn tasks.

        Args:
            withdrawn: What is withdrawn.
        """

        def stays(vote: Vote) -> bool:
            return vote.task_id not in withdrawn.tasks and vote.annotator not in withdrawn.annotators

        return Votes([vote for vote in self.judged if stays(vote)], [vote for vote in self.decided if stays(vote)])

    @property
    def people(self) -> list[str]:
        """The names of all who rated or decided, sorted."""
        return sorted({vote.annotator for vote in self.judged} | {vote.annotator for vote in self.decided})


class _Line(BaseModel):
    """The fields that are read from a line of judgements or decisions. Others are ignored."""

    model_config = ConfigDict(extra="ignore")

    task_id: str
    candidate_id: str
    instruction_following: int = Field(alias="if", ge=LOWEST_RATING, le=HIGHEST_RATING)
    visual_quality: int = Field(alias="vq", ge=LOWEST_RATING, le=HIGHEST_RATING)


class _Judged(_Line):
    annotator: str


class _Decided(_Line):
    annotator: str = Field(alias="lead")


def read_votes(folder: Path) -> Votes:
    """Return the votes of a judgements folder or a dataset folder.

    Args:
        folder: The folder. One without `decisions.jsonl` has no decisions.

    Raises:
        EditLoopError: A line is not a judgement or decision, or an annotator rated a candidate twice.
    """
    judged, decided = _read(folder / JUDGEMENTS, _Judged), []
    if (folder / DECISIONS).is_file():  # missing where nothing was adjudicated
        decided = _read(folder / DECISIONS, _Decided)
    for previous, vote in pairwise(judged):
        if vote[:3] == previous[:3]:
            raise EditLoopError(
                f"{folder / JUDGEMENTS}: {vote.annotator} rated candidate {vote.candidate_id} twice; collect again."
            )
    return Votes(judged, decided)


def write_votes(folder: Path, votes: Votes) -> None:
    """Write votes into a dataset folder, for `read_votes`.

    Args:
        folder: The dataset folder.
        votes: The votes.
    """
    for name, rows, who in ((JUDGEMENTS, votes.judged, "annotator"), (DECISIONS, votes.decided, "lead")):
        keys = ("task_id", "candidate_id", who, "if", "vq")
        write_file(folder / name, "".join(f"{json.dumps(dict(zip(keys, row, strict=True)))}\n" for row in rows))


def _read(path: Path, kind: type[_Judged] | type[_Decided]) -> list[Vote]:
    votes = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = kind.model_validate_json(line)
            except ValidationError as error:
                wrong = "; ".join(f"{item['loc']}: {item['msg']}" for item in error.errors())
                raise EditLoopError(
                    f"{path}, line {number}: {wrong}. Collect or import the judgements again."
                ) from error
            ids = (intern(row.task_id), intern(row.candidate_id), intern(row.annotator))
            votes.append(Vote(*ids, row.instruction_following, row.visual_quality))
    return sorted(votes)

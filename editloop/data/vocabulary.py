"""The records of the loop: edit task, candidate, page, judgement, decision.

All that experts see and answer is stored in them.
"""

from collections.abc import Sequence, Sized
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from editloop.content import sha256_json

Axis = Literal["if", "vq"]
AXES: tuple[Axis, ...] = ("if", "vq")
AXIS_NAMES: dict[Axis, str] = {"if": "Instruction following", "vq": "Visual quality"}
MOST_REFERENCES = 3
"""Most reference images of a task, which come after its source."""
LOWEST_RATING, HIGHEST_RATING = 1, 4
"""Each axis is a 4-point Likert scale (EditReward, arXiv 2509.26346)."""


def is_empty(value: Sized) -> bool:
    """Return whether a value has no elements, so that files can leave it out.

    Args:
        value: The value.
    """
    return not value


class Record(BaseModel):
    """Base of the records: immutable, without unknown keys, filled by a field's name or its alias."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Candidate(Record):
    """One edit of a task's source image. Its `candidate_id` does not reveal the editor."""

    candidate_id: str
    image: str
    """Identity of the image, `picture_sha256`. The file is `images/<identity>.png` in the candidates folder."""
    editor: str
    """The editor that made it, never shown to annotators."""
    seed: int | None = None


class EditTask(Record):
    """A source image, an instruction, and the candidate edits to judge.

    The instruction may speak of further images, the references: "put the dog of image 2 into image 1".
    """

    task_id: str
    """Content address: 16 characters of the sha256 of (source, instruction, references)."""
    name: str
    """The `id` of the row in the team's edits file."""
    task_type: str = "edit"
    instruction: str
    source: str
    """Identity of the source image."""
    references: tuple[str, ...] = Field(default=(), max_length=MOST_REFERENCES, exclude_if=is_empty)
    """Identities of the reference images, image 2 and those after it. Files leave them out where there are none."""
    target: str | None = None
    """Identity of the known right result. None where there is none."""
    candidates: tuple[Candidate, ...] = ()


Kind = Literal["task", "repeat", "gold", "norming", "training"]
"""Why a page is shown: for its own sake, a second time to measure an annotator's consistency, because the answer is
known (gold), or to everybody so that they discuss their ratings (norming). Annotators cannot tell these apart. Training
pages are gold in a project of their own, which shows the known answer after an annotator's."""
CHECK_KINDS: tuple[Kind, ...] = ("repeat", "gold", "norming")
"""Kinds of pages whose ratings say something of the annotators; models do not learn from them."""

Range = tuple[int, int]
"""Lowest and highest correct rating, both inclusive."""


class Page(Record):
    """One page of a campaign: what is shown, in what order, and to how many annotators.

    Pages are stored in the campaign's folder (`pages.jsonl`). A Label Studio task has only the `key`, so that kinds and
    known answers stay hidden from annotators.
    """

    key: str
    """Content address of what is shown and how, and the page's only name in Label Studio."""
    kind: Kind
    task_id: str
    instruction: str
    source: str
    """Identity of the source image."""
    references: tuple[str, ...] = Field(default=(), exclude_if=is_empty)
    """Identities of the reference images."""
    candidates: tuple[str, ...]
    """Candidate ids in the order of the page. Where a task has fewer candidates than the page has slots, the first ones
    repeat."""
    images: tuple[str, ...]
    """Identities of the candidates' images, in the same order."""
    overlap: int = Field(ge=1)
    """Number of annotators who get the page. Every annotator gets the pages of all kinds but `task`."""
    expected: dict[str, dict[Axis, Range]] = {}
    """Known answers of a gold page, by candidate and axis. Whatever is not listed has no known answer."""


class Judgement(Record):
    """One annotator's ratings of one candidate."""

    kind: Kind = "task"
    """Kind of the page. Models learn from `task` judgements only."""
    task_id: str
    candidate_id: str
    annotator: str
    instruction_following: int = Field(alias="if", ge=LOWEST_RATING, le=HIGHEST_RATING)
    visual_quality: int = Field(alias="vq", ge=LOWEST_RATING, le=HIGHEST_RATING)
    position: int = Field(ge=0)
    """Index of the candidate on the annotator's page, from 0."""
    seconds: float | None = None
    """Time that the annotator spent on the whole page. None: unknown."""
    annotation_id: int
    created_at: datetime


class CannotJudge(Record):
    """One annotator's answer that a page cannot be judged."""

    kind: Kind
    task_id: str
    annotator: str
    reason: str
    note: str | None = Field(default=None, exclude_if=lambda note: note is None)
    """What the reason is, in the annotator's words. Files leave it out where there is none."""
    annotation_id: int
    created_at: datetime


class Decision(Record):
    """The lead's ratings of one candidate whose votes conflicted.

    They are stored beside the votes and never replace them.
    """

    task_id: str
    candidate_id: str
    lead: str
    instruction_following: int = Field(alias="if", ge=LOWEST_RATING, le=HIGHEST_RATING)
    visual_quality: int = Field(alias="vq", ge=LOWEST_RATING, le=HIGHEST_RATING)
    reason: str
    annotation_id: int
    created_at: datetime


def task_id(source: str, instruction: str, references: Sequence[str] = ()) -> str:
    """Return the content address of a task, 16 hex characters.

    Args:
        source: Identity of the source image.
        instruction: The instruction.
        references: Identities of the reference images, in order.
    """
    return sha256_json([source, instruction, *references])[:16]


def candidate_id(task: str, image: str) -> str:
    """Return the content address of a candidate within its task, 16 hex characters.

    Equal images of one task are one candidate.

    Args:
        task: The task's id.
        image: Identity of the candidate's image.
    """
    return sha256_json([task, image])[:16]

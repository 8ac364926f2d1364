"""The words of the loop: edit task, candidate, judgement. Everything an expert sees and says is one of these."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from editloop.content import sha256_json

Axis = Literal["if", "vq"]
AXES: tuple[Axis, ...] = ("if", "vq")
AXIS_NAMES: dict[Axis, str] = {"if": "Instruction following", "vq": "Visual quality"}
LOWEST_RATING, HIGHEST_RATING = 1, 4
"""Each axis is a 4-point Likert scale (EditReward, arXiv 2509.26346)."""


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Candidate(Record):
    """One edit of a task's source image. `candidate_id` says nothing of the editor to whoever reads it."""

    candidate_id: str
    image: str
    """sha256 of the image file's bytes; the file is `images/<sha256>.png` of its folder."""
    editor: str
    """Which editor made it; never shown to annotators."""
    seed: int | None = None


class EditTask(Record):
    """A source image, an instruction, and the candidate edits to be judged."""

    task_id: str
    """Content address: sha256 of (source, instruction), 16 characters."""
    name: str
    """The id in the team's own edits file."""
    task_type: str = "edit"
    instruction: str
    source: str
    """sha256 of the source image."""
    target: str | None = None
    """sha256 of the known right result, where there is one (an oracle's world, a real edit)."""
    candidates: tuple[Candidate, ...] = ()


Kind = Literal["task", "repeat", "gold"]
"""Why a page is asked: for its own sake, a second time to see whether a person agrees with themselves, or because the
answer is known. Nothing that an annotator sees tells which."""

Range = tuple[int, int]
"""Lowest and highest rating that is right, both inclusive."""


class Page(Record):
    """One page of a campaign: what is shown, in what order, and how many people are asked.

    Pages live in the campaign's folder (`pages.jsonl`), never in Label Studio, whose task has `key` alone: kinds and
    known answers stay hidden from annotators.
    """

    key: str
    """Content address of what is shown and how; the page's only name in Label Studio."""
    kind: Kind
    task_id: str
    instruction: str
    source: str
    """sha256 of the source image."""
    candidates: tuple[str, ...]
    """Candidate ids in the order of the page; where a task has fewer than the page has places, the first ones again."""
    images: tuple[str, ...]
    """sha256 of the candidates' images, in the same order."""
    overlap: int = Field(ge=1)
    """How many annotators are asked; repeats and gold are asked of everybody."""
    expected: dict[str, dict[Axis, Range]] = {}
    """Known answers of a gold page by candidate and axis; what is not named is not known."""


class Judgement(Record):
    """One annotator's ratings of one candidate."""

    kind: Kind = "task"
    """Kind of the page it was given on; only `task` judgements teach a model."""
    task_id: str
    candidate_id: str
    annotator: str
    instruction_following: int = Field(alias="if", ge=LOWEST_RATING, le=HIGHEST_RATING)
    visual_quality: int = Field(alias="vq", ge=LOWEST_RATING, le=HIGHEST_RATING)
    position: int = Field(ge=0)
    """Place of the candidate on the annotator's page, 0 = first."""
    seconds: float | None = None
    """Time the annotator spent on the whole task."""
    annotation_id: int
    created_at: datetime


class CannotJudge(Record):
    """One annotator's answer that a page cannot be judged."""

    kind: Kind
    task_id: str
    annotator: str
    reason: str
    annotation_id: int
    created_at: datetime


class Decision(Record):
    """The lead's ratings of one candidate whose votes were in conflict; kept beside the votes, never in their place."""

    task_id: str
    candidate_id: str
    lead: str
    instruction_following: int = Field(alias="if", ge=LOWEST_RATING, le=HIGHEST_RATING)
    visual_quality: int = Field(alias="vq", ge=LOWEST_RATING, le=HIGHEST_RATING)
    reason: str
    annotation_id: int
    created_at: datetime


def task_id(source: str, instruction: str) -> str:
    """Content address of a task; `source` is the image's sha256."""
    return sha256_json([source, instruction])[:16]


def candidate_id(task: str, image: str) -> str:
    """Content address of a candidate within its task; equal pictures of one task are one candidate."""
    return sha256_json([task, image])[:16]

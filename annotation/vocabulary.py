"""The words of the loop: edit task, candidate, judgement. Everything an expert sees and says is one of these."""

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from infra.content import sha256_json

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


class Judgement(Record):
    """One annotator's ratings of one candidate."""

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


def task_id(source: str, instruction: str) -> str:
    """Content address of a task; `source` is the image's sha256."""
    return sha256_json([source, instruction])[:16]


def candidate_id(task: str, image: str) -> str:
    """Content address of a candidate within its task; equal pictures of one task are one candidate."""
    return sha256_json([task, image])[:16]

"""The interface of a judge of edits: a local reward model, a served one, or an endpoint of another provider.

It needs numpy only, so that a client can import it without torch.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from editloop.errors import EditLoopError

LOG = logging.getLogger(__name__)
Picture = NDArray[np.uint8]
"""(height, width, 3), RGB, 0..255. Sizes may differ from image to image."""

REFERENCES = "{references}"
"""Placeholder for the number of reference images in a sentence about them."""
REFERENCE_NOTE = """\
Image 1 is the original. Between it and the edit there are reference images, {references} in number: image 2 and those
after it, of which the instruction may speak. "The second picture" is the edit, which comes last.

"""
"""What a judge reads beside its questions, which count two pictures, where a task has reference images."""


@dataclass(frozen=True)
class EditGroup:
    """One source, one instruction and the K edits made for them. A judge computes once what the edits share."""

    instruction: str
    source: Picture
    edits: Sequence[Picture]
    """K images, or one array (K, height, width, 3)."""
    key: str = ""
    """The caller's name for the group. Judges ignore it."""
    references: Sequence[Picture] = ()
    """Further images of which the instruction speaks: `source` is image 1, and these are image 2 and those after it."""


@dataclass(frozen=True)
class AxisScore:
    """A judge's score of one edit on one axis, on the judge's own scale."""

    mean: float
    sigma: float
    """Standard deviation, at least 0: predicted by the model (EditReward), or over passes or the digits' probabilities
    (EditScore)."""


class JudgeWording(NamedTuple):
    """The texts that a judge reads around an edit."""

    sha256: str
    """Digest of the texts."""
    is_substitute: bool
    """Whether they are others than those with which the released weights were trained, so that the scores are not the
    published ones."""


@dataclass(frozen=True)
class Score:
    """A judge's score of one edit. A missing score has a reason and no numbers."""

    axes: dict[str, AxisScore] = field(default_factory=dict)
    """Scores by the judge's axis names; empty where the score is missing."""
    fused: AxisScore | None = None
    """The axes combined into one score, on the judge's own scale: the published score, by which suites rank."""
    overall: float | None = None
    """One number that orders the edits of a task, on a familiar scale: EditReward's is the sum of two ratings of 1..4
    (2..8), EditScore's is O, 0..10."""
    reward: float | None = None
    """The reward for RL, 0..1."""
    missing: str = ""
    """Why there is no score; empty where there is one."""
    answers: tuple[str, ...] = ()
    """The texts that a generating judge wrote, one per question and pass, also where the score is missing."""


class JudgeUnavailableError(EditLoopError):
    """The judge is unreachable, overloaded or answers incorrectly. The request itself may be valid."""


class StaleJudgeError(JudgeUnavailableError):
    """The judge's model has changed. Scores of the two models must not be mixed."""


class Judge(Protocol):
    """Scores edits. Call it from one thread at a time."""

    @property
    def name(self) -> str:
        """Registered name of the kind of judge, `edit-reward` or `edit-score`, or the model name of an endpoint."""

    @property
    def version(self) -> str:
        """Content address of the weights (a manifest's sha256), or the model that the endpoint reports."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes in its scores."""

    def judge(self, groups: Sequence[EditGroup]) -> list[list[Score]]:
        """Score every edit of some groups.

        Args:
            groups: The edits to score.

        Returns:
            One list per group, in order, with one score per edit.

        Raises:
            EditLoopError: A group cannot be judged at all.
            JudgeUnavailableError: The judge cannot score anything now.
        """


@runtime_checkable
class TaskJudge(Protocol):
    """A judge that can have a question for each type of task."""

    def for_task(self, task: str) -> Judge:
        """Return the judge with the question of a type of task.

        Args:
            task: The type.

        Raises:
            EditLoopError: It has no question for it.
        """


class WordedSettings(Protocol):
    """Settings of a model that is asked in words."""

    @property
    def wording(self) -> Literal["trained", "substitute"]:
        """`substitute` where the texts are others than those with which the released weights were trained."""

    @property
    def wording_sha256(self) -> str:
        """Digest of the texts."""


def takes_references(judge: Judge) -> bool:
    """Return whether a judge reads a task's reference images, from its attribute `takes_references`; no where it has
    none: its scores would be those of another task.

    Args:
        judge: The judge.
    """
    return bool(getattr(judge, "takes_references", False))


def no_place_for_references(judge: Judge) -> str:
    """Return why a judge cannot score the edits of tasks with reference images: the same for all, to be counted.

    Args:
        judge: The judge.
    """
    return (
        f"the task has reference images, and {judge.name} {judge.version[:12]} reads one source and one edit: it is a "
        "model of `paired` pictures, or a judge that does not say `takes_references`"
    )


def note_on_references(note: str, references: int) -> str:
    """Return the sentence about a task's reference images; empty where it has none.

    Args:
        note: The sentence, with `{references}` in place of their number.
        references: Number of the task's reference images.
    """
    return note.replace(REFERENCES, str(references)) if references else ""


def judge_wording(settings: WordedSettings) -> JudgeWording:
    """Return the wording of a model.

    Args:
        settings: The model's settings.
    """
    return JudgeWording(settings.wording_sha256, settings.wording == "substitute")


def wording_facts(settings: WordedSettings) -> dict[str, object]:
    """Return what a model's manifest says of its wording.

    Args:
        settings: The model's settings.
    """
    return {"wording": settings.wording, "wording_sha256": settings.wording_sha256}


def warn_of_no_wording(weights: Path) -> None:
    """Log a warning that a release becomes a model without its wording.

    Args:
        weights: The release.
    """
    LOG.warning(
        "%s: no wording given, so EditLoop's own is put to weights that were trained with another. Scores are not the "
        "published ones, and results say so. Give --wording or --reference-repo.",
        weights,
    )


def warn_of_substitute(settings: WordedSettings, model: Path) -> None:
    """Log a warning where a model's wording is not that of its weights.

    Args:
        settings: The model's settings.
        model: The model's folder.
    """
    if settings.wording == "substitute":
        LOG.warning(
            "%s: its weights were trained with another wording than the one that it has, so its scores are not the "
            "published ones. `editloop judge add` with --wording or --reference-repo gives it its own.",
            model,
        )


def wording_note(wording: JudgeWording | None) -> str:
    """Return what is said of a judge's wording behind its name and version; empty where none is known.

    Args:
        wording: The wording.
    """
    return f", wording {describe_wording(wording)}" if wording else ""


def describe_wording(wording: JudgeWording) -> str:
    """Return a wording's digest, with a warning where it is not that of the weights.

    Args:
        wording: The wording.
    """
    warning = " (another than the weights were trained with: these are not the published scores)"
    return f"{wording.sha256[:12]}{warning if wording.is_substitute else ''}"


def wording_of(judge: Judge) -> JudgeWording | None:
    """Return the wording of a judge, from its attribute `wording`; None where it has none that is known.

    Args:
        judge: The judge.
    """
    wording: JudgeWording | None = getattr(judge, "wording", None)
    return wording

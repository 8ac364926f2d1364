"""Judges behind an endpoint that write several scores on one scale, aspect by aspect or line by line."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.models.judge_protocol import AxisScore, JudgeWording, Score
from editloop.scoring.aspect_answers import read_aspects
from editloop.scoring.endpoint_questions import ChatQuestion, ChatReply, Sampling, sampling_fields
from editloop.scoring.line_answers import read_score_lines
from editloop.scoring.single_question import SingleQuestion

MEAN = "mean"
"""The one axis of a judge whose scores have other names from task to task."""


class RatingJudge(SingleQuestion, ABC):
    """A judge whose answer has several scores on one scale; an edit's score is their mean."""

    low: float = 1.0
    high: float = 4.0
    """The lowest and the highest score."""
    sampling: Sampling = Sampling(temperature=0.1)
    least_share: float = Field(default=0.5, gt=0, le=1)
    """An edit is scored when at least this share of its passes gave scores."""

    @model_validator(mode="after")
    def _has_a_range(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")
        return self

    @property
    @abstractmethod
    def axes(self) -> tuple[str, ...]:
        """Names of the scores that every answer has."""

    @abstractmethod
    def read(self, text: str) -> dict[str, float] | str:
        """Return the scores of an answer, or the fault.

        Args:
            text: The answer.
        """

    def with_passes(self, passes: int) -> Self:
        """Return the judge with another number of passes.

        Args:
            passes: Number of answers that are averaged.
        """
        return self.model_copy(update={"sampling": self.sampling.model_copy(update={"passes": passes})})

    def ask(self, instruction: str, references: int = 0) -> list[ChatQuestion]:
        """Return one request for each pass.

        Args:
            instruction: The instruction.
            references: Number of reference images.
        """
        parts, sampling = self.parts(instruction, references), self.sampling
        seeds = range(sampling.seed, sampling.seed + sampling.passes)
        return [ChatQuestion(self.system, parts, sampling_fields(sampling) | {"seed": seed}) for seed in seeds]

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return the means over the passes that can be read. `fused` and `overall` are the mean over the scores.

        Args:
            replies: The replies to `ask`, in order.
        """
        answers = tuple(reply.text for reply in replies)
        passes = ["cut" if reply.is_cut else self.read(reply.text) for reply in replies]
        scores = [entry for entry in passes if isinstance(entry, dict)]
        if len(scores) < math.ceil(self.least_share * len(passes)):
            faults = Counter(entry for entry in passes if isinstance(entry, str))
            counts = ", ".join(f"{fault} {count}" for fault, count in sorted(faults.items()))
            return Score(missing=f"{faults.total()} of {len(passes)} passes gave no score: {counts}", answers=answers)
        fused = _spread([float(np.mean(list(entry.values()))) for entry in scores])
        axes = {name: _spread([entry[name] for entry in scores]) for name in self.axes if name != MEAN}
        axes |= {MEAN: fused} if MEAN in self.axes else {}
        return Score(axes, fused, fused.mean, (fused.mean - self.low) / (self.high - self.low), answers=answers)


class AspectJudge(RatingJudge):
    """A judge that scores aspect by aspect; the score of an edit is the mean over the aspects."""

    kind: Literal["aspects"]
    aspects: dict[str, str] = Field(min_length=1)
    """The aspects' headings in the answer, by the names of the axes."""
    optional: dict[str, str] = Field(default_factory=dict)
    """Headings of further aspects that may be `N/A`. They are no axes, and count where they are rated."""

    @model_validator(mode="after")
    def _has_each_aspect_once(self) -> "AspectJudge":
        if self.aspects.keys() & self.optional.keys():
            raise ValueError(f"{', '.join(self.aspects.keys() & self.optional.keys())} is in aspects and in optional")
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the aspects that every answer rates."""
        return tuple(self.aspects)

    def read(self, text: str) -> dict[str, float] | str:
        """Return the scores by aspect, or the fault.

        Args:
            text: The answer.
        """
        return read_aspects(text, self.aspects | self.optional, self.low, self.high, frozenset(self.optional))


class LineJudge(RatingJudge):
    """A judge with a line for each score and, where `tasks` has them, a question for each type of task."""

    kind: Literal["lines"]
    text: str = ""
    """The question of the types of task that `tasks` does not have; empty for none."""
    tasks: dict[str, str] = Field(default_factory=dict)
    """Questions by type of task, each like `text`."""
    scores: int = Field(3, ge=1)
    """Number of scores in an answer."""
    high: float = 5.0
    """The highest score."""
    sampling: Sampling = Sampling()

    @field_validator("tasks")
    @classmethod
    def _have_their_places(cls, tasks: dict[str, str]) -> dict[str, str]:
        for text in tasks.values():
            cls._has_its_places(text)
        return tasks

    @model_validator(mode="after")
    def _asks_something(self) -> "LineJudge":
        if not self.text and not self.tasks:
            raise ValueError("neither text nor tasks: there is no question")
        return self

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of the one axis: the scores' names differ from task to task."""
        return (MEAN,)

    @property
    def wording(self) -> JudgeWording:
        """Digest of the texts."""
        return JudgeWording(sha256_json([self.system, self.text, self.tasks]), is_substitute=False)

    def for_task(self, task: str) -> "LineJudge":
        """Return the judge with the question of a type of task.

        Args:
            task: The type.

        Raises:
            EditLoopError: It has no question for it.
        """
        text = self.tasks.get(task, self.text)
        if not text:
            raise EditLoopError(f"judge: no question for task {task}; add it to `tasks` ({', '.join(self.tasks)}).")
        return self.model_copy(update={"text": text})

    def ask(self, instruction: str, references: int = 0) -> list[ChatQuestion]:
        """Return one request for each pass.

        Args:
            instruction: The instruction.
            references: Number of reference images.

        Raises:
            EditLoopError: There is a question for each type of task only, and the type is not known.
        """
        if not self.text:
            raise EditLoopError("judge: it has questions by type of task only; give it a `text` for all others.")
        return super().ask(instruction, references)

    def read(self, text: str) -> dict[str, float] | str:
        """Return the scores by name, or the fault.

        Args:
            text: The answer.
        """
        return read_score_lines(text, self.scores, self.low, self.high)


def _spread(values: Sequence[float]) -> AxisScore:
    return AxisScore(float(np.mean(values)), float(np.std(values)))

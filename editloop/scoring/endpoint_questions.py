"""What a judge behind an endpoint is asked, and what its answers are worth.

Four kinds of judge, each with its texts and settings in a file (`EDITLOOP_OPENAI_JUDGE`), in YAML or JSON:

    edit-score  two questions, SC and PQ, with two numbers each in JSON: EditScore, VIEScore (top: 10) and
                UnifiedReward-Edit. Without reasoning, the expected value over the digits 0 to 5 of each point.
    aspects     one question; the answer goes aspect by aspect, each with a score: RationalRewards.
    lines       one question, or one for each type of task; the answer has a line `NAME: SCORE` for each of its scores:
                ImgEdit-Bench.
    tokens      one question; the expected value over the probabilities of the first token, such as the digits 0 to 5
                (Edit-R1) or yes and no.
"""

import math
import re
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from editloop.content import sha256_json
from editloop.errors import EditLoopError
from editloop.models.edit_score.scores import SCALE, expected_score, score_of_answers
from editloop.models.edit_score.settings import AXES, DIGITS, INSTRUCTION, EditScoreSettings
from editloop.models.judge_protocol import AxisScore, JudgeWording, Score, judge_wording, warn_of_substitute
from editloop.scoring.aspect_answers import read_aspects
from editloop.scoring.line_answers import read_score_lines
from editloop.settings_file import FrozenModel, read_yaml, validate_settings

CONTROL_TOKEN_START = re.compile(r"<(?=\|)")
"""Start of the control tokens in Qwen's format and in most others."""
PICTURE_PLACES = re.compile(r"\{(source|edit)\}")
"""Placeholders of the pictures in a text."""
MEAN = "mean"
"""The one axis of a judge whose scores have other names from task to task."""
TOP_LOGPROBS = 20
"""Most likely tokens whose probabilities are asked for: the most that vLLM and OpenAI give."""

PartKind = Literal["text", "source", "edit"]
FieldValue = int | float | bool
"""Value of a field of a request."""


class Part(NamedTuple):
    """A part of a message: a text, or one of the two pictures."""

    kind: PartKind
    text: str = ""


class ChatQuestion(NamedTuple):
    """One request for a chat completion."""

    system: str
    """Empty for none."""
    parts: tuple[Part, ...]
    fields: dict[str, FieldValue]
    """Sampling settings, by the names of the protocol and of vLLM's extensions."""
    answer_start: str = ""
    """Beginning of the answer, which the model continues; empty where it begins itself."""


class ChatReply(NamedTuple):
    """What is read of a chat completion."""

    text: str
    is_cut: bool = False
    """Whether the answer ended because it was too long."""
    first_token: tuple[tuple[str, float], ...] | None = None
    """The likeliest first tokens with their probabilities; None where the endpoint gave none."""


class EndpointQuestions(Protocol):
    """A judge's questions about one edit."""

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes in the scores."""

    @property
    def max_pixels(self) -> int | None:
        """Most pixels of a picture that is sent; None for its own size."""

    @property
    def wording(self) -> JudgeWording:
        """Digest of the texts."""

    def digest(self) -> str:
        """Return the digest of texts and settings."""

    def with_passes(self, passes: int) -> "EndpointQuestions":
        """Return the questions with another number of passes.

        Args:
            passes: Number of passes.
        """

    def ask(self, instruction: str) -> list[ChatQuestion]:
        """Return the requests of one edit.

        Args:
            instruction: The edit's instruction.
        """

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return the score of an edit.

        Args:
            replies: The replies to the requests that `ask` returned, in their order.
        """


class EditScoreQuestions:
    """EditScore's two questions, K passes of each with a seed of its own, or the digits' probabilities."""

    axes = AXES

    def __init__(self, settings: EditScoreSettings):
        """Take the questions of an EditScore model, or of a file of kind `edit-score`.

        Args:
            settings: Texts, passes, sampling and seed. Images are sent with at most `max_pixels`.
        """
        self.settings = settings
        self.max_pixels: int | None = settings.max_pixels
        self.wording = judge_wording(settings)

    def digest(self) -> str:
        """Return the digest of texts and settings."""
        return sha256_json(self.settings.model_dump())

    def with_passes(self, passes: int) -> "EditScoreQuestions":
        """Return the questions with another number of passes.

        Args:
            passes: K of Avg@K.
        """
        return EditScoreQuestions(self.settings.model_copy(update={"passes": passes}))

    def ask(self, instruction: str) -> list[ChatQuestion]:
        """Return SC's K requests, then PQ's; without reasoning one for each of the four points.

        Args:
            instruction: The instruction.
        """
        settings = self.settings
        requests = []
        for question, pictures in zip(settings.questions, (("source", "edit"), ("edit",)), strict=True):
            parts: list[Part] = []
            for number, picture in enumerate(pictures, start=1):
                parts += [Part("text", settings.mark(number))] if settings.picture_mark else []
                parts.append(Part("edit" if picture == "edit" else "source"))
            parts.append(Part("text", question.text.replace(INSTRUCTION, plain_text(instruction))))
            if settings.reasoning:
                for seed in range(settings.seed, settings.seed + settings.passes):
                    fields = sampling_fields(settings) | {"seed": seed}
                    requests.append(ChatQuestion(settings.system, tuple(parts), fields))
            else:
                for axis in question.axes:
                    requests.append(ChatQuestion(settings.system, tuple(parts), FIRST_TOKEN_FIELDS, f"{axis}: "))
        return requests

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return Avg@K, or the expected score.

        Args:
            replies: The replies to `ask`, in order.
        """
        settings = self.settings
        if settings.reasoning:
            texts = [reply.text for reply in replies]
            return score_of_answers(texts[: settings.passes], texts[settings.passes :], settings)
        chances = [token_chances(reply, DIGITS) for reply in replies]
        return expected_score(np.array(chances), settings.least_mass)


class Sampling(FrozenModel):
    """How a judge answers."""

    passes: int = Field(1, ge=1)
    """Answers to each question, whose scores are averaged."""
    temperature: float = Field(0.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(-1, ge=-1)
    """-1 for all tokens."""
    repetition_penalty: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(2048, ge=1)
    seed: int = 42
    """Pass k is asked with seed + k."""


class SingleQuestion(FrozenModel):
    """A judge with one question about source and edit."""

    system: str = ""
    """The system message; empty for none."""
    text: str
    """The question, with `{instruction}`. `{source}` and `{edit}` are where the pictures stand; without either, both
    come before the text."""
    max_pixels: int | None = Field(None, ge=1)
    """Most pixels of a picture that is sent; null for its own size."""

    @field_validator("text")
    @classmethod
    def _has_its_places(cls, text: str) -> str:
        if INSTRUCTION not in text:
            raise ValueError(f"has no {INSTRUCTION}, so the judge would not know what was asked")
        places = PICTURE_PLACES.findall(text)
        if len(set(places)) != len(places) or places == ["source"]:
            raise ValueError("shows {source} and {edit} once each, or the edit alone")
        return text

    @property
    def wording(self) -> JudgeWording:
        """Digest of the texts."""
        return JudgeWording(sha256_json([self.system, self.text]), is_substitute=False)

    def digest(self) -> str:
        """Return the digest of texts and settings."""
        return sha256_json(self.model_dump(mode="json"))

    def parts(self, instruction: str) -> tuple[Part, ...]:
        """Return the message with the pictures in their places.

        Args:
            instruction: The instruction.
        """
        pieces = PICTURE_PLACES.split(self.text)
        parts = [] if len(pieces) > 1 else [Part("source"), Part("edit")]
        for index, piece in enumerate(pieces):
            if index % 2:
                parts.append(Part("edit" if piece == "edit" else "source"))
            elif piece:
                parts.append(Part("text", piece.replace(INSTRUCTION, plain_text(instruction))))
        return tuple(parts)


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

    def ask(self, instruction: str) -> list[ChatQuestion]:
        """Return one request for each pass.

        Args:
            instruction: The instruction.
        """
        parts, sampling = self.parts(instruction), self.sampling
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

    def ask(self, instruction: str) -> list[ChatQuestion]:
        """Return one request for each pass.

        Args:
            instruction: The instruction.

        Raises:
            EditLoopError: There is a question for each type of task only, and the type is not known.
        """
        if not self.text:
            raise EditLoopError("judge: it has questions by type of task only; give it a `text` for all others.")
        return super().ask(instruction)

    def read(self, text: str) -> dict[str, float] | str:
        """Return the scores by name, or the fault.

        Args:
            text: The answer.
        """
        return read_score_lines(text, self.scores, self.low, self.high)


class TokenJudge(SingleQuestion):
    """A judge whose answer is one token: its score is the expected value under the tokens' probabilities, 0 to 10."""

    kind: Literal["tokens"]
    values: dict[str, float] = Field(min_length=2)
    """Value of each token, such as {yes: 1, no: 0} or {"0": 0, ..., "5": 5}. Case and spaces around do not matter."""
    least_mass: float = Field(default=0.5, ge=0, le=1)
    """The tokens must hold at least this much of the probability. Otherwise the edit is missing."""

    @field_validator("values", mode="before")
    @classmethod
    def _as_text(cls, values: object) -> object:
        """Take a YAML file's numbers and booleans, which `0`, `yes` and `no` are without quotes, as tokens."""
        if not isinstance(values, dict):
            return values
        words = {True: "yes", False: "no"}
        return {words[key] if isinstance(key, bool) else str(key): value for key, value in values.items()}

    @field_validator("values")
    @classmethod
    def _differ(cls, values: dict[str, float]) -> dict[str, float]:
        if len(set(values.values())) < 2 or not all(map(math.isfinite, values.values())):
            raise ValueError("the tokens have no two different finite values")
        names = [_token_name(token) for token in values]
        if "" in names or len(set(names)) != len(names):
            raise ValueError("two tokens differ in case or spaces only, or one is empty")
        return values

    @property
    def axes(self) -> tuple[str, ...]:
        """Name of the one score."""
        return ("answer",)

    def with_passes(self, passes: int) -> "TokenJudge":
        """Refuse another number of passes than one: probabilities are not sampled.

        Args:
            passes: The number.
        """
        if passes != 1:
            raise EditLoopError(f"{passes} passes: a judge of kind `tokens` reads probabilities, without chance.")
        return self

    def ask(self, instruction: str) -> list[ChatQuestion]:
        """Return the one request.

        Args:
            instruction: The instruction.
        """
        return [ChatQuestion(self.system, self.parts(instruction), FIRST_TOKEN_FIELDS)]

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return the expected value, scaled to 0..10.

        Args:
            replies: The reply to `ask`.
        """
        chances = np.array(token_chances(replies[0], list(self.values)))
        mass = float(chances.sum())
        if mass < max(self.least_mass, 1e-12):
            names = ", ".join(self.values)
            return Score(missing=f"{names} hold {mass:.2f} of the probability, below {self.least_mass:g}")
        values = np.array(list(self.values.values()))
        levels = (values - values.min()) / (values.max() - values.min()) * SCALE
        mean = float(chances @ levels / mass)
        answer = AxisScore(mean, math.sqrt(float(chances @ (levels - mean) ** 2 / mass)))
        return Score({"answer": answer}, answer, answer.mean, answer.mean / SCALE)


FIRST_TOKEN_FIELDS: dict[str, FieldValue] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": -1,
    "repetition_penalty": 1.0,
    "max_tokens": 1,
    "logprobs": True,
    "top_logprobs": TOP_LOGPROBS,
}
"""Fields of a request for the probabilities of the first token, which nothing may distort."""


def sampling_fields(sampling: EditScoreSettings | Sampling) -> dict[str, FieldValue]:
    """Return sampling settings as fields of a request. All are sent: an endpoint may have defaults of its own.

    Args:
        sampling: The settings. The seed, which differs from pass to pass, is not among the fields.
    """
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "repetition_penalty": sampling.repetition_penalty,
        "max_tokens": sampling.max_new_tokens,
    }


def plain_text(instruction: str) -> str:
    """Return an instruction in which an endpoint's tokenizer finds no control tokens.

    A zero-width space keeps them plain text.

    Args:
        instruction: The instruction.
    """
    return CONTROL_TOKEN_START.sub("<\u200b", instruction)


def token_chances(reply: ChatReply, tokens: Sequence[str]) -> list[float]:
    """Return the probabilities of some first tokens; 0 for one that is not among the likeliest.

    Args:
        reply: The reply.
        tokens: The tokens. Case and spaces around do not matter.

    Raises:
        EditLoopError: The endpoint gave no probabilities.
    """
    if reply.first_token is None:
        raise EditLoopError(
            "endpoint: its reply has no token log-probabilities (`logprobs`), which this judge is read from. Serve the "
            "model with vLLM, or take a judge that writes its scores."
        )
    chances: dict[str, float] = defaultdict(float)
    for token, chance in reply.first_token:
        chances[_token_name(token)] += chance
    return [chances[_token_name(token)] for token in tokens]


def read_judge_file(path: Path) -> EndpointQuestions:
    """Read the file of a judge's texts and settings. An `editscore.json` of a model's folder is such a file.

    Args:
        path: The file, in YAML or JSON. Its `kind` is `edit-score` where it does not say.

    Raises:
        EditLoopError: The file cannot be read, or a value in it is not valid.
    """
    values: Any = read_yaml(path)
    source, advice = f"judge {path}", "Correct the file."
    kind = values.get("kind", "edit-score") if isinstance(values, dict) else "edit-score"
    if kind == "aspects":
        return validate_settings(AspectJudge, values, source, advice)
    if kind == "lines":
        return validate_settings(LineJudge, values, source, advice)
    if kind == "tokens":
        return validate_settings(TokenJudge, values, source, advice)
    if kind != "edit-score":
        raise EditLoopError(f"{source}: kind {kind!r}; there are edit-score, aspects, lines and tokens. {advice}")
    own = {key: value for key, value in values.items() if key != "kind"} if isinstance(values, dict) else values
    settings = validate_settings(EditScoreSettings, own, source, advice)
    warn_of_substitute(settings, path)
    return EditScoreQuestions(settings)


def _token_name(token: str) -> str:
    return token.strip(" \u0120\u2581\t\n").lower()


def _spread(values: Sequence[float]) -> AxisScore:
    return AxisScore(float(np.mean(values)), float(np.std(values)))

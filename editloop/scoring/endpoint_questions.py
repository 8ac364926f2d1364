"""The chat completions that a judge behind an endpoint is asked for, and what is read of its replies."""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

from pydantic import Field

from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import JudgeWording, Score
from editloop.settings_file import FrozenModel

CONTROL_TOKEN_START = re.compile(r"<(?=\|)")
"""Start of the control tokens in Qwen's format and in most others."""

PartKind = Literal["text", "source", "reference", "edit"]
FieldValue = int | float | bool
"""Value of a field of a request."""


class Part(NamedTuple):
    """A part of a message: a text, or one of the pictures."""

    kind: PartKind
    text: str = ""
    number: int = 0
    """Which of the references it is, from 0."""

    @property
    def picture(self) -> tuple[PartKind, int]:
        """Which of the pictures it is."""
        return self.kind, self.number


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

    def ask(self, instruction: str, references: int = 0) -> list[ChatQuestion]:
        """Return the requests of one edit.

        Args:
            instruction: The edit's instruction.
            references: Number of its reference images.
        """

    def score(self, replies: Sequence[ChatReply]) -> Score:
        """Return the score of an edit.

        Args:
            replies: The replies to the requests that `ask` returned, in their order.
        """


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

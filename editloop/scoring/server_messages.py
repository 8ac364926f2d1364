"""Messages between client and server: JSON, with images as base64 of a PNG, JPEG, WebP or AVIF file."""

import base64
import binascii
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from editloop.data.vocabulary import MOST_REFERENCES, is_empty
from editloop.models.judge_protocol import Score
from editloop.scoring.server_settings import Limits

MODEL_HEADER, VERSION_HEADER = "X-EditLoop-Model", "X-EditLoop-Version"
"""Headers with the name and the content address of the model, on every reply of the scoring API once it is known."""
_SCORE = TypeAdapter(Score)


def _decode_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("a picture is base64 text of a PNG, JPEG, WebP or AVIF file")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error}); send the bytes of a PNG, JPEG, WebP or AVIF file so") from None


EncodedPicture = Annotated[
    bytes,
    BeforeValidator(_decode_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str),
]
"""Bytes of an image file; base64 in JSON."""


class Message(BaseModel):
    """Base of all messages: immutable, without unknown fields, infinities or NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScoreRequest(Message):
    """POST /v1/score: one source, one instruction, and the edits that answer it."""

    instruction: str
    source: EncodedPicture
    references: list[EncodedPicture] = Field([], max_length=MOST_REFERENCES, exclude_if=is_empty)
    """Further images of which the instruction speaks, image 2 and those after it. A request without any leaves the
    field out, so that servers without it read the request."""
    edits: list[EncodedPicture] = Field(min_length=1, fail_fast=True)  # a fault in each of millions takes gigabytes


class AxisMessage(Message):
    """A judge's belief about one axis of one edit."""

    mean: float
    sigma: float = Field(ge=0)


class ScoreMessage(Message):
    """The score of one edit: either all numbers, or the reason why they are missing."""

    axes: dict[str, AxisMessage] = {}
    fused: AxisMessage | None = None
    overall: float | None = None
    reward: float | None = None
    missing: str = ""

    @model_validator(mode="after")
    def _numbers_or_a_reason(self) -> Self:
        numbers = (self.fused, self.overall, self.reward)
        has_all = bool(self.axes) and all(number is not None for number in numbers)
        has_none = not self.axes and all(number is None for number in numbers)
        if not (has_none if self.missing else has_all):
            raise ValueError("a score has all its numbers, or none of them and a reason in `missing`")
        return self

    @classmethod
    def of(cls, score: Score) -> Self:
        """Make the message of a score.

        Args:
            score: A complete score, or a missing one with a reason.

        Raises:
            ValidationError: The score lacks some of its numbers, or one is not finite.
        """
        return cls.model_validate(score, from_attributes=True)

    def score(self) -> Score:
        """The score that the message holds."""
        return _SCORE.validate_python(self.model_dump())


class ScoreReply(Message):
    """Scores of a request's edits, in their order, and the model that gave them."""

    model: str
    version: str
    scores: list[ScoreMessage]


class WordingMessage(Message):
    """The texts that a judge reads around an edit."""

    sha256: str
    is_substitute: bool
    """Whether the released weights were trained with others."""


class ModelReply(Message):
    """GET /v1/model: the model that is served, and the limits of a request."""

    model: str
    version: str
    axes: tuple[str, ...]
    limits: Limits
    wording: WordingMessage | None = None
    references: bool | None = Field(None, exclude_if=lambda value: value is None)
    """Whether the model reads reference images. It is there where the request has `references=true`: clients that know
    no reference images accept no further fields."""


class ErrorReply(Message):
    """The body of every refusal."""

    error: str


def describe_validation_error(error: ValidationError) -> str:
    """Describe pydantic's errors in one line.

    Input values are left out: images are long, and instructions are private.

    Args:
        error: The error; its first five findings are named, the others counted.
    """
    findings = [
        f"{'.'.join(map(str, details['loc'])) or 'body'}: {details['msg']}"
        for details in error.errors(include_url=False)
    ]
    return "; ".join(findings[:5]) + (f"; and {len(findings) - 5} more" if len(findings) > 5 else "")

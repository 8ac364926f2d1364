"""What client and server say to each other: JSON, pictures as base64 of a PNG, JPEG or WebP file."""

import base64
import binascii
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from editloop.models.judge_protocol import AxisScore, Score
from editloop.scoring.server_settings import Limits

MODEL_HEADER, VERSION_HEADER = "X-EditLoop-Model", "X-EditLoop-Version"
"""Name and content address of the model that answered, on every reply about scores."""


def _decode_base64(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("a picture is base64 text of a PNG, JPEG or WebP file")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64 ({error}); send the bytes of a PNG, JPEG or WebP file so") from None


EncodedPicture = Annotated[
    bytes,
    BeforeValidator(_decode_base64),
    PlainSerializer(lambda data: base64.b64encode(data).decode(), return_type=str),
]
"""Bytes of a picture file; base64 in JSON."""


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ScoreRequest(Message):
    """POST /v1/score: one source, one instruction, and the edits that answer it."""

    instruction: str
    source: EncodedPicture
    edits: list[EncodedPicture] = Field(min_length=1)


class AxisMessage(Message):
    mean: float
    sigma: float = Field(ge=0)


class ScoreMessage(Message):
    """One edit's score; either numbers, or a reason why they are missing."""

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
        """The message of a score. ValidationError where it is half missing or a number is not finite."""

        def axis_message(axis: AxisScore) -> AxisMessage:
            return AxisMessage(mean=axis.mean, sigma=axis.sigma)

        return cls(
            axes={name: axis_message(axis) for name, axis in score.axes.items()},
            fused=axis_message(score.fused) if score.fused else None,
            overall=score.overall,
            reward=score.reward,
            missing=score.missing,
        )

    def score(self) -> Score:
        """The score that the message tells."""
        return Score(
            axes={name: AxisScore(axis.mean, axis.sigma) for name, axis in self.axes.items()},
            fused=AxisScore(self.fused.mean, self.fused.sigma) if self.fused else None,
            overall=self.overall,
            reward=self.reward,
            missing=self.missing,
        )


class ScoreReply(Message):
    """The scores of a request, in the order of its edits, and who gave them."""

    model: str
    version: str
    scores: list[ScoreMessage]


class ModelReply(Message):
    """GET /v1/model: which model answers here, and what a request may hold."""

    model: str
    version: str
    axes: tuple[str, ...]
    limits: Limits


class ErrorReply(Message):
    """The body of every refusal."""

    error: str


def describe_validation_error(error: ValidationError) -> str:
    """pydantic's findings in a line; values are left out, since pictures are long and instructions private."""
    findings = [
        f"{'.'.join(map(str, details['loc'])) or 'body'}: {details['msg']}"
        for details in error.errors(include_url=False)
    ]
    return "; ".join(findings[:5]) + (f"; and {len(findings) - 5} more" if len(findings) > 5 else "")

"""The text of a judge with one question about source and edit, with places for both pictures and the instruction.

A task's reference images come directly after its source, each behind a label with its number.
"""

import re

from pydantic import Field, field_validator

from editloop.content import sha256_json
from editloop.models.edit_score.settings import INSTRUCTION, NUMBER
from editloop.models.judge_protocol import REFERENCE_NOTE, JudgeWording, note_on_references
from editloop.scoring.endpoint_questions import Part, plain_text
from editloop.settings_file import FrozenModel

PICTURE_PLACES = re.compile(r"\{(source|edit)\}")
"""Placeholders of the pictures in a text."""
REFERENCE_LABEL = "Image {n}, a reference of which the instruction may speak:"
"""Text before a reference image, with `{n}` in place of its number: the source is image 1."""


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

    def parts(self, instruction: str, references: int = 0) -> tuple[Part, ...]:
        """Return the message with the pictures in their places.

        Where the text does not show the source, it does not show the references either.

        Args:
            instruction: The instruction.
            references: Number of reference images.
        """
        sources = [Part("source")]
        for number in range(references):
            label = REFERENCE_LABEL.replace(NUMBER, str(number + 2))
            sources += [Part("text", label), Part("reference", number=number)]
        pieces = PICTURE_PLACES.split(self.text)
        parts: list[Part] = []
        if len(pieces) == 1:
            note = note_on_references(REFERENCE_NOTE, references)
            parts = [*sources, Part("edit"), *([Part("text", note)] if note else [])]
        for index, piece in enumerate(pieces):
            if index % 2:
                parts += [Part("edit")] if piece == "edit" else sources
            elif piece:
                parts.append(Part("text", piece.replace(INSTRUCTION, plain_text(instruction))))
        return tuple(parts)

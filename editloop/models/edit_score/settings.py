"""Settings of an EditScore model: its questions and how it answers. Imports no torch, so that clients can use it."""

from typing import Literal, NamedTuple

from pydantic import Field, ValidationInfo, field_validator, model_validator

from editloop.content import sha256_json
from editloop.models.judge_protocol import REFERENCE_NOTE
from editloop.settings_file import FrozenModel

AXES = ("prompt_following", "consistency", "naturalness", "artefacts")
"""Names of the four points of an edit, in order: two per answer to SC, then two per answer to PQ."""
DIGITS = "012345"
"""Points without reasoning: the digits whose probabilities are read (Edit-R1)."""
INSTRUCTION = "{instruction}"
"""Placeholder for the instruction."""
TOP = "{top}"
"""Placeholder for the highest score."""
NUMBER = "{n}"
"""Placeholder for a picture's number, from 1, in the text before it."""

SYSTEM = "You judge edited pictures fairly and say what you see."
SC = """\
The first picture is an original, the second is what an editor made of it. The editor was told:

{instruction}

Give two scores, whole numbers from 0 to {top}.
1. How far was the instruction carried out? {top}: in every point. 0: not at all.
2. How much of what the instruction does not speak of stayed as it was? {top}: all of it. 0: it is another picture.
Compare the pictures part by part before you score. A fault that anybody sees at once costs at least a third."""
PQ = """\
An editor made this picture. You are not shown what it was made from and need not guess.

Give two scores, whole numbers from 0 to {top}.
1. How natural does it look, by its light, shadows, sizes and distances? {top}: like a photograph or drawing that nobody
   touched. 0: pasted together.
2. How free is it of artefacts such as smears, seams, noise, doubled or broken shapes? {top}: there are none. 0: they
   are everywhere."""
WITH_REASONING = """
Answer with one JSON object and nothing else, the reasons first:
{"reasoning": "what you saw, in a sentence or two", "score": [first, second]}"""
WITHOUT_REASONING = """
Answer with the name of the score and one digit from 0, the lowest, to 5, the highest."""


class EditScoreQuestion(NamedTuple):
    """One of the two questions asked of every edit."""

    name: Literal["sc", "pq"]
    text: str
    """With `{instruction}` in place of the instruction. PQ has no instruction."""
    axes: tuple[str, str]
    """Names of its two points, in the order of the answer."""


class EditScoreSettings(FrozenModel):
    """Settings of an EditScore model (`editscore.json` in its folder). Defaults are the published ones."""

    system: str = SYSTEM
    """The system message; empty for none."""
    sc: str = SC
    """Semantic consistency, asked of source and edit: [edit success, restraint]. `{instruction}` and `{top}` are
    placeholders for the instruction and for `top`. Reference images are shown between source and edit."""
    pq: str = PQ
    """Perceptual quality, asked of the edit alone: [naturalness, freedom from artefacts]."""
    reference_note: str = REFERENCE_NOTE
    """Text before SC's question where a task has reference images, with `{references}` in place of their number."""
    closing: str | None = None
    """How to answer; null takes the wording that fits `reasoning`, and an empty text adds none."""
    picture_mark: str = ""
    """Text before each picture, with `{n}` in place of its number. The Qwen2.5-VL releases have one, the Qwen3-VL ones
    have none."""
    top: int = Field(default=25, ge=1)
    """The highest score; 0 is the lowest. As published, 25 works better than 10 and 30."""
    reasoning: bool = True
    """Sample answers with reasons before the scores. If false, no text is generated: points are expected values over
    the digits 0..5."""
    pictures: Literal["separate", "paired"] = "separate"
    """Images of SC: `separate` places one after the other; `paired`, for small models, makes them the two frames of
    one image, which share its tokens, and has no place for reference images."""
    passes: int = Field(default=4, ge=1)
    """K of Avg@K: answers sampled for each question. Not used without reasoning."""
    temperature: float = Field(default=0.7, ge=0)
    """0 takes the likeliest token."""
    top_p: float = Field(default=0.9, gt=0, le=1)
    top_k: int = Field(default=20, ge=1)
    """Sampling is restricted to the `top_k` likeliest tokens, and to the fewest of these that hold `top_p` of their
    probability."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Logits of the tokens in prompt and answer are divided by it where positive, and multiplied where negative
    (arXiv 1909.05858); 1 changes nothing."""
    max_new_tokens: int = Field(default=512, ge=1)
    """Longest answer, in tokens. A longer answer is cut and cannot be parsed."""
    seed: int = 42
    """Pass k draws with seed + k, whatever else is in the batch."""
    least_share: float = Field(default=0.5, gt=0, le=1)
    """An edit is scored when at least this share of its passes (rounded up) gave both answers. Otherwise it is
    missing."""
    least_mass: float = Field(default=0.5, ge=0, le=1)
    """Without reasoning: the digits must hold at least this much of the next token's probability. Otherwise the edit is
    missing."""
    min_pixels: int = Field(default=4 * 28 * 28, ge=1)
    max_pixels: int = Field(default=512 * 512, ge=1)
    """Pixels of an image after scaling, `min_pixels` to `max_pixels`, with its aspect ratio kept."""
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean and standard deviation of each channel, on 0..1, as in the base's image processor."""
    instruction_tokens: int = Field(default=2048, ge=1)
    """Tokens of an instruction. Of a longer one the model sees the beginning, and a warning says so."""
    wording: Literal["trained", "substitute"] = "trained"
    """`trained`: the texts are those with which the weights are trained. `substitute`: released weights whose wording
    was not given are asked with EditLoop's own, so that their scores are not the published ones."""
    wording_sha256: str = Field(default="", validate_default=True)
    """Digest of all texts around the pictures (of `reference_note` where it is not the default). Empty computes it; any
    other value must be theirs."""

    @field_validator("sc")
    @classmethod
    def _says_the_instruction(cls, text: str) -> str:
        if text.count(INSTRUCTION) != 1:
            raise ValueError(f"has {INSTRUCTION} {text.count(INSTRUCTION)} times; it must stand there once")
        return text

    @field_validator("pq")
    @classmethod
    def _does_not_say_it(cls, text: str) -> str:
        if INSTRUCTION in text:
            raise ValueError(f"has {INSTRUCTION}; this question is about the edited picture alone")
        return text

    @field_validator("wording_sha256")
    @classmethod
    def _digested(cls, sha256: str, info: ValidationInfo) -> str:
        names = ("system", "picture_mark", "sc", "pq", "closing", "top", "reasoning")
        if not info.data.keys() >= {*names, "reference_note"}:
            return sha256  # a text is not valid, which is the fault to name
        note = info.data["reference_note"]
        digest = sha256_json([*(info.data[name] for name in names), *([] if note == REFERENCE_NOTE else [note])])
        if sha256 not in ("", digest):
            raise ValueError(f"the texts here have {digest[:12]}; they were changed. Leave it out")
        return digest

    @model_validator(mode="after")
    def _pixels_in_order(self) -> "EditScoreSettings":
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        return self

    def mark(self, number: int) -> str:
        """Return the text before a picture.

        Args:
            number: The picture's number in its question, from 1.
        """
        return self.picture_mark.replace(NUMBER, str(number))

    @property
    def questions(self) -> tuple[EditScoreQuestion, EditScoreQuestion]:
        """SC and PQ as they are asked, with `{top}` filled in and the wording on how to answer added."""
        default_closing = WITH_REASONING if self.reasoning else WITHOUT_REASONING
        closing = default_closing if self.closing is None else self.closing
        sc, pq = (
            (text + "\n" + closing if closing else text).replace(TOP, str(self.top)) for text in (self.sc, self.pq)
        )
        return EditScoreQuestion("sc", sc, AXES[:2]), EditScoreQuestion("pq", pq, AXES[2:])

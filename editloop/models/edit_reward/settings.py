"""Settings of an EditReward model (`reward.json` in its folder), and the default wording of its rubrics."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from editloop.content import sha256_json
from editloop.models.judge_protocol import REFERENCE_NOTE
from editloop.settings_file import FrozenModel

INSTRUCTION = "{instruction}"
"""Placeholder for the instruction in a rubric."""
REWARD_TOKEN = "<|Reward|>"
"""The token at whose hidden state a head reads the score."""
OPENING = "<|im_start|>user\n"
INSTRUCTION_INTRO = """\
The first picture is the original. The second was made from it by an editor who was told:

{instruction}

"""
FOLLOWING = """\
Judge one thing only: how well the edit does what it was told.
- Is everything done that was asked for, in the right place, number, colour and size?
- Is everything else as it was: other things, the people and their faces, the background, the framing?
- Was something done that nobody asked for?
Nothing done, or the wrong thing, is the lowest mark; partly done, or done with much else changed, is the next; done
with a slip is a good mark; done exactly, with nothing else touched, is the best. How pretty the picture is plays no
part."""
QUALITY = """\
Judge one thing only: how good the second picture is as a picture, whatever it was meant to show.
- Are light, shadows, reflections, sizes and distances those of one scene?
- Are there seams, smears, noise, blur, doubled or broken shapes, odd hands or faces, unreadable letters?
- Do the changed parts fit the rest in sharpness, grain and style?
Broken is the lowest mark; faults that anybody sees at once are the next; small faults are a good mark; as clean as the
original is the best. Whether the instruction was carried out plays no part."""
Order = Literal["paired", "official", "rubric-first"]
WORDING: dict[Order, tuple[str, ...]] = {
    "paired": (),
    "official": (INSTRUCTION_INTRO + FOLLOWING, INSTRUCTION_INTRO + QUALITY),
    "rubric-first": (
        f"There are two marks.\n\nThe first: {FOLLOWING}\n\n",
        f"The second: {QUALITY}\n\n{INSTRUCTION_INTRO}",
    ),
}
"""Default rubrics, written for EditLoop. Those of `rubric-first` end with the instruction: the text before it is the
same for all tasks and goes through the model once per batch."""


class Calibration(FrozenModel):
    """Maps raw scores to ratings, per axis: 1 + 3 sigmoid(slope mu + offset). See `calibration`."""

    slope: tuple[float, ...] = (1.0, 1.0)
    """One per axis, above 0."""
    offset: tuple[float, ...] = (0.0, 0.0)
    """One per axis."""
    error: tuple[float, ...] | None = None
    """Root mean square error per axis on the ratings of the fit, in rating steps; None where the map was not fitted."""
    candidates: int = Field(0, ge=0)
    """Number of rated candidates of the fit."""

    @model_validator(mode="after")
    def _monotone(self) -> "Calibration":
        if len(self.slope) != len(self.offset) or not all(value > 0 for value in self.slope):
            raise ValueError(f"slope {self.slope}, offset {self.offset}: one of each an axis, and slopes above 0")
        return self


class RewardSettings(FrozenModel):
    """Settings of a reward model. Defaults are the published ones, except for the wording of the rubrics."""

    order: Order = "official"
    """Order in which the model reads an edit. `official`, as published: source, edit, an axis's rubric,
    `<|Reward|>`, in one pass per axis. `rubric-first`, EditLoop's own: all rubrics, source, edit, then one
    `<|Reward|>` per axis, all read in one pass. In both, reference images come directly after the source. `paired`,
    for small images: source and edit as the two frames of one image, the instruction, one `<|Reward|>` per axis; it
    has no place for references."""
    fusion: Literal["mean", "sum", "min"] = "mean"
    """How the axes' scores become one score; see `fuse`."""
    axes: tuple[str, ...] = ("if", "vq")
    """Names of the axes: instruction following and visual quality."""
    rubrics: tuple[str, ...] = Field(default=(), validate_default=True)
    """One rubric per axis, with `{instruction}` in place of the instruction. Empty takes WORDING. `paired` has no
    rubrics. A released checkpoint needs the wording with which it was trained."""
    reference_note: str = REFERENCE_NOTE
    """Text beside the rubrics where a task has reference images, with `{references}` in place of their number: before
    each rubric of `official`, after the instruction of `rubric-first`. Not used by `paired`, which has no
    references."""
    opening: str = OPENING
    """Text before everything else, in which control tokens become tokens. `paired` has none."""
    wording: Literal["trained", "substitute"] = "trained"
    """`trained`: rubrics and opening are those with which the weights are trained. `substitute`: released weights whose
    wording was not given are read with EditLoop's own, so that their scores are not the published ones."""
    wording_sha256: str = Field(default="", validate_default=True)
    """Digest of opening and rubrics, and of a `reference_note` that is not the default. Empty computes it; any other
    value must be theirs."""
    positions: Literal["mrope", "flat"] = "mrope"
    """How the tokens of an image are numbered. `mrope`: by frame, row and column on three axes, as the backbones do.
    `flat`: one after the other, like text, as the published code did for Qwen2.5-VL and MiMo-VL."""
    side: int | None = Field(default=None, ge=1)
    """Pixels a side of the squares to which `paired` scales images. None for the other orders, which keep the aspect
    ratio."""
    min_pixels: int = Field(default=448 * 448, ge=1)
    max_pixels: int = Field(default=448 * 448, ge=1)
    """Pixels of an image after scaling, `min_pixels` to `max_pixels`; not used by `paired`."""
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Mean and standard deviation of each channel, on 0..1, as in the base's image processor."""
    instruction_tokens: int = Field(default=512, ge=1)
    """Tokens of an instruction. Of a longer one the model sees the beginning, and a warning says so."""
    shared_head: bool = False
    """One head reads all axes: the published ablation."""
    calibration: Calibration = Calibration()
    """The map from the heads' raw scores to the experts' ratings."""

    @field_validator("rubrics")
    @classmethod
    def _worded(cls, rubrics: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return rubrics or WORDING.get(info.data.get("order", "paired"), ())

    @field_validator("wording_sha256")
    @classmethod
    def _digested(cls, sha256: str, info: ValidationInfo) -> str:
        texts = [info.data.get("opening"), info.data.get("rubrics")]
        note = info.data.get("reference_note")
        digest = sha256_json(texts if note == REFERENCE_NOTE else [*texts, note])
        if sha256 not in ("", digest):
            raise ValueError(f"the opening and the rubrics here have {digest[:12]}; they were changed. Leave it out")
        return digest

    @model_validator(mode="after")
    def _fits(self) -> "RewardSettings":
        if (self.order == "paired") != (self.side is not None):
            raise ValueError(
                f"order {self.order!r}, side {self.side}: `paired` needs a side, the other orders have none"
            )
        if self.min_pixels > self.max_pixels:
            raise ValueError(f"min_pixels {self.min_pixels} is above max_pixels {self.max_pixels}")
        if len(self.calibration.slope) != len(self.axes):
            raise ValueError(f"calibration of {len(self.calibration.slope)} axes for {self.axes}: one map an axis")
        if self.order != "paired":
            if len(self.rubrics) != len(self.axes):
                raise ValueError(f"{len(self.rubrics)} rubrics for the axes {self.axes}: one an axis")
            if not any(INSTRUCTION in rubric for rubric in self.rubrics):
                raise ValueError(f"rubrics: {INSTRUCTION} stands in none, so the model would not know what was asked")
        return self

    @property
    def heads(self) -> int:
        """Number of heads."""
        return 1 if self.shared_head else len(self.axes)

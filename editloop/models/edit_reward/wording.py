"""The wording of released EditReward weights: read from a user's file, or from a checkout of the authors' repository.

The authors' rubrics are not part of EditLoop.
"""

from pathlib import Path
from string import Formatter
from typing import NamedTuple

from editloop.errors import EditLoopError
from editloop.models.edit_reward.settings import INSTRUCTION, REWARD_TOKEN
from editloop.models.reference_repository import find_constants
from editloop.settings_file import FrozenModel, read_settings

HEADS = ("if", "vq")
"""Axes of a released model, in the order of its heads."""
RUBRIC_NAMES = ("INSTRUCTION_EDIT_FOLLOWING", "INSTRUCTION_EDIT_QUALITY")
"""String constants of the authors' repository with the rubrics, in the order of the heads."""
TAIL_NAME = "prompt_with_special_token"
"""String constant of the authors' repository with what follows a rubric, up to the reward token and beyond."""
AUTHORS_FIELD = "text_prompt"
"""The authors' name of the instruction in a rubric, which goes through `str.format`."""


class ReleasedWording(NamedTuple):
    """The texts with which released weights were trained."""

    rubrics: tuple[str, ...]
    """One per head, up to the reward token, with `{instruction}` in place of the instruction."""
    opening: str | None
    """Text before the pictures; None takes that of the base's chat template."""


class WordingFile(FrozenModel):
    """A file of wording, in YAML or JSON."""

    rubrics: dict[str, str]
    """The rubric of each axis, `if` and `vq` (or `head_0` and `head_1`), with `{instruction}` in place of the
    instruction. `<|Reward|>` and what follows it may be left out. A rubric with the authors' `{text_prompt}`
    instead doubles its braces, as for `str.format`."""
    opening: str | None = None
    """Text before the pictures. Left out, it is that of the base's chat template."""
    tail: str = ""
    """Text after each rubric."""
    placeholder: str = ""
    """A note on the placeholder, not read."""
    end: str = ""
    """Text after the reward token, not read."""


def read_wording(path: Path) -> ReleasedWording:
    """Read a file of wording.

    Args:
        path: The file; `WordingFile` says what it holds.

    Raises:
        EditLoopError: The file cannot be read, lacks an axis, or a rubric has no place for the instruction.
    """
    content = read_settings(WordingFile, path, "wording")
    names = [
        [name for name in content.rubrics if name == axis or name.split()[0:1] == [f"head_{head}"]]
        for head, axis in enumerate(HEADS)
    ]
    if [len(keys) for keys in names] != [1, 1] or len(content.rubrics) != len(HEADS):
        raise EditLoopError(
            f"wording {path}: rubrics of {', '.join(map(repr, content.rubrics)) or 'nothing'}; give one of `if` "
            "(instruction following, head_0) and one of `vq` (visual quality, head_1)."
        )
    texts = [content.rubrics[keys[0]] for keys in names]
    return ReleasedWording(
        tuple(
            _rubric(text, content.tail, f"wording {path}: {keys[0]}") for text, keys in zip(texts, names, strict=True)
        ),
        content.opening,
    )


def read_reference_repository(folder: Path) -> ReleasedWording:
    """Find the wording in a checkout of the authors' repository: string constants of Python files, by name.

    Args:
        folder: The checkout.

    Raises:
        EditLoopError: A constant is not there, or is there with two values.
    """
    following, quality, tail = find_constants(folder, (*RUBRIC_NAMES, TAIL_NAME))
    if REWARD_TOKEN not in tail:
        raise EditLoopError(f"--reference-repo {folder}: {TAIL_NAME} has no {REWARD_TOKEN}, at which the heads read.")
    rubrics = (
        _rubric(text, tail, f"--reference-repo {folder}: {name}")
        for name, text in zip(RUBRIC_NAMES, (following, quality), strict=True)
    )
    return ReleasedWording(tuple(rubrics), None)


def _rubric(text: str, tail: str, what: str) -> str:
    """Return a rubric up to the reward token, with `{instruction}` in place of the instruction."""
    rubric = (_from_format(text, what) if INSTRUCTION not in text else text) + tail
    rubric = rubric.partition(REWARD_TOKEN)[0]
    if INSTRUCTION not in rubric:
        raise EditLoopError(
            f"{what}: neither {INSTRUCTION} nor {{{AUTHORS_FIELD}}} before {REWARD_TOKEN}, so the model would not know "
            "what was asked."
        )
    return rubric


def _from_format(text: str, what: str) -> str:
    """Turn a text for `str.format(text_prompt=...)` into one with `{instruction}` and single braces."""
    try:
        parts = list(Formatter().parse(text))
    except ValueError as error:
        raise EditLoopError(f"{what}: no text for str.format ({error}). Double the braces that stay.") from None
    fields = {field for _, field, _, _ in parts if field is not None}
    if fields - {AUTHORS_FIELD}:
        raise EditLoopError(
            f"{what}: has the fields {', '.join(sorted(fields))}; only {AUTHORS_FIELD} is filled in. Double the braces "
            "that stay."
        )
    return "".join(literal + (INSTRUCTION if field is not None else "") for literal, field, _, _ in parts)

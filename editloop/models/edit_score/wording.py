"""The wording of released EditScore weights: read from a user's file, or from a checkout of the authors' repository.

The authors' texts are not part of EditLoop.
"""

from pathlib import Path

from editloop.errors import EditLoopError
from editloop.models.edit_score.settings import INSTRUCTION, TOP
from editloop.models.reference_repository import find_constants
from editloop.settings_file import FrozenModel, read_settings

CONTEXT_NAME = "_context_no_delimit_reasoning_first"
"""String constant of the authors' repository that begins both questions and says how to answer."""
RULE_NAME, SC_NAME, PQ_NAME = (
    "_prompts_0shot_two_image_edit_rule",
    "_prompts_0shot_tie_rule_SC",
    "_prompts_0shot_rule_PQ",
)
"""String constants of the authors' repository: what the pictures of SC are, and the scales of SC and of PQ."""
AUTHORS_FIELD, AUTHORS_TOP = "<instruction>", "10"
"""The authors' name of the instruction in SC, and the highest score, which they replace wherever it stands."""


class ScoreWording(FrozenModel):
    """The questions with which weights were trained; also a file of wording, in YAML or JSON."""

    sc: str
    """Semantic consistency, with `{instruction}` (or the authors' `<instruction>`) and `{top}` in place of the
    instruction and of the highest score."""
    pq: str
    """Perceptual quality, with `{top}` in place of the highest score."""
    system: str | None = None
    """The system message. Left out, it is that of the base's chat template."""


def read_score_wording(path: Path) -> ScoreWording:
    """Read a file of wording.

    Args:
        path: The file; `ScoreWording` says what it holds.

    Raises:
        EditLoopError: The file cannot be read, lacks a question, or SC has no place for the instruction.
    """
    wording = read_settings(ScoreWording, path, "wording")
    return _checked(wording.model_copy(update={"sc": _instructed(wording.sc)}), f"wording {path}")


def read_score_repository(folder: Path) -> ScoreWording:
    """Find the wording in a checkout of the authors' repository.

    Args:
        folder: The checkout.

    Raises:
        EditLoopError: A constant is not there or is there with two values, or SC has no place for the instruction.
    """
    names = (CONTEXT_NAME, RULE_NAME, SC_NAME, PQ_NAME)
    context, rule, sc, pq = find_constants(folder, names, beside=CONTEXT_NAME)
    sc, pq = (text.replace(AUTHORS_TOP, TOP) for text in (sc, pq))
    wording = ScoreWording(sc=_instructed("\n".join((context, rule, sc))), pq="\n".join((context, pq)))
    return _checked(wording, f"--reference-repo {folder}")


def _instructed(sc: str) -> str:
    return sc if INSTRUCTION in sc else sc.replace(AUTHORS_FIELD, INSTRUCTION)


def _checked(wording: ScoreWording, what: str) -> ScoreWording:
    if wording.sc.count(INSTRUCTION) != 1 or INSTRUCTION in wording.pq:
        raise EditLoopError(
            f"{what}: {INSTRUCTION} stands {wording.sc.count(INSTRUCTION)} times in sc and "
            f"{wording.pq.count(INSTRUCTION)} times in pq; it is once in sc, and not in pq."
        )
    return wording

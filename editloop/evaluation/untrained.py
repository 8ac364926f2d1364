"""The untrained model of a reward model's backbone, as a judge: what a training has to be better than.

A plain vision-language model judges by writing, as the base of EditScore does: it is asked EditScore's two questions,
and its four points are the expected digits under the logits of the answer's first token, as Edit-R1 reads them. That is
one pass without chance, and the same for EditReward, whose new heads would say nothing without training. Where a line
of trainings began with a model that judges already, such as those that ship, that model as it is takes the place.
"""

from pathlib import Path
from typing import NamedTuple

from editloop.content import MANIFEST, read_manifest, sha256_json
from editloop.errors import EditLoopError
from editloop.models.edit_score.settings import EditScoreSettings
from editloop.models.judge_protocol import Judge
from editloop.scoring.opening import find_local, open_judge

QUESTIONS = EditScoreSettings(reasoning=False, least_mass=0.0)
"""EditScore's questions, answered by a digit. An untrained model may put little of its probability on digits; the
expected value is over these alone."""
JUDGE_FILES = ("reward.json", "editscore.json")
"""Settings of EditReward and EditScore: a folder without them is a plain vision-language model."""


class UntrainedModel(NamedTuple):
    """An untrained model that judges."""

    judge: Judge
    name: str
    """Where it lies, for the gate's pages."""


def is_judge(base: str) -> bool:
    """Return whether a base is a trained judge, not a plain vision-language model.

    Args:
        base: A model's folder, a shipped name or an address in the registry.

    Raises:
        EditLoopError: There is no such model.
    """
    return _judges(find_local(base).folder)


def first_base(base: str) -> Path:
    """Return the folder of the model with which a line of trainings began.

    A model that was trained from another one names it in its manifest; this follows the names to one that names none.

    Args:
        base: The base of the last training: a folder, a shipped name or an address in the registry.

    Raises:
        EditLoopError: A model on the way is not on this machine, or the names run in a circle.
    """
    visited: list[Path] = []
    address = base
    while address:
        folder = find_local(address).folder
        if folder in visited:
            raise EditLoopError(f"{base}: its bases run in a circle ({' <- '.join(map(str, [*visited, folder]))}).")
        visited.append(folder)
        facts = read_manifest(folder)["facts"] if (folder / MANIFEST).is_file() else {}
        address = str(facts.get("base") or "")
    return visited[-1]


def open_untrained(base: str, *, device: str | None = None) -> UntrainedModel:
    """Open the untrained model behind a base, ready to judge.

    Args:
        base: The base of a reward model's training, or the untrained model itself.
        device: Device of the model; None takes the first GPU, or the CPU where there is none.

    Raises:
        EditLoopError: A model on the way to it is not on this machine, or it cannot write (a model without an output
            layer or without a token for each digit).
    """
    folder = first_base(base)
    if _judges(folder):
        return UntrainedModel(open_judge(str(folder), device=device), folder.name)
    from editloop.models.edit_score.checkpoints import base_digest
    from editloop.models.edit_score.judge import EditScoreJudge
    from editloop.models.edit_score.model import EditScoreModel

    model = EditScoreModel.from_base(folder, QUESTIONS, device)
    model.rows.digits()  # before the first edit: whether each digit is a token
    judge = EditScoreJudge(model, sha256_json([base_digest(folder), model.settings.model_dump(mode="json")]))
    judge.name = f"untrained-{folder.name}"
    return UntrainedModel(judge, folder.name)


def _judges(folder: Path) -> bool:
    return any((folder / name).is_file() for name in JUDGE_FILES)

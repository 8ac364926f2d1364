"""Shape checks of the tests: what the maths takes and returns has the shapes and types that its annotations say.

jaxtyping's import hook wraps the functions of `MODULES` with beartype. Product code runs without both.
"""

import sys

from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

RL, REWARD = "editloop.training.editor_rl", "editloop.training.edit_reward"
STATISTICS = "editloop.statistics"

MODULES = (
    f"{RL}.advantages",
    f"{RL}.measures",
    f"{RL}.nft",
    f"{RL}.policy_loss",
    f"{RL}.reweighting",
    f"{RL}.sde",
    f"{RL}.update_steps",
    f"{REWARD}.group_loss",
    f"{REWARD}.losses",
    "editloop.training.edit_score.sft",
    "editloop.training.edit_score.targets",
    "editloop.training.editor_dpo.pair_loss",
    "editloop.training.flow_matching",
    "editloop.models.edit_reward.calibration",
    "editloop.models.editors.solvers",
    "editloop.models.edit_score.scores",
    f"{STATISTICS}.agreement",
    f"{STATISTICS}.bootstrap",
    f"{STATISTICS}.difficulty",
    f"{STATISTICS}.holm",
    f"{STATISTICS}.judgement_table",
    f"{STATISTICS}.mcnemar",
    f"{STATISTICS}.reliability",
)
"""Modules whose annotations are checked at every call."""

check_types = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""The checker: an int passes where a float is annotated, as it does for mypy."""


def install() -> None:
    """Check the modules from their import on; none may be imported yet."""
    early = sorted({*MODULES} & {*sys.modules})
    assert not early, f"imported before their shapes could be checked: {', '.join(early)}"
    install_import_hook(MODULES, f"{__name__}.check_types")

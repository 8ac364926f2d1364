"""The tests check the shapes and types that the maths' annotations say: what does not fit is refused."""

import importlib
import subprocess
import sys
from collections.abc import Callable

import jaxtyping
import numpy as np
import pytest
import torch

from editloop.statistics.bootstrap import resampled_ratios
from editloop.statistics.holm import holm
from editloop.training.edit_reward.group_loss import group_loss
from editloop.training.edit_reward.losses import expected_log
from editloop.training.editor_rl.advantages import solved
from editloop.training.editor_rl.nft import nft_loss
from editloop.training.editor_rl.policy_loss import clipped_mask
from editloop.training.editor_rl.sde import log_prob
from editloop.training.flow_matching import noised
from tests import shape_checks

LATENTS = torch.zeros(2, 4, 3)
ROWS = torch.zeros(2)

WRONG: dict[str, Callable[[], object]] = {
    "old policy of another length": lambda: nft_loss(LATENTS, LATENTS[:, :3], LATENTS, LATENTS, ROWS, ROWS, 1.0),
    "noise levels per latent": lambda: noised(LATENTS, LATENTS, torch.zeros(2, 4)),
    "deviations of another batch": lambda: log_prob(LATENTS, LATENTS, torch.ones(3)),
    "ratios per latent": lambda: clipped_mask(torch.ones(2, 4), ROWS, 0.1, 0.1),
    "whole numbers": lambda: solved(torch.ones(2, 4, dtype=torch.long)),
    "scores that do not broadcast": lambda: expected_log(
        torch.zeros(2), torch.zeros(2), torch.zeros(3), torch.zeros(3)
    ),
    "weights without their axes": lambda: group_loss(
        torch.zeros(1, 3, 2),
        torch.zeros(1, 3, 2),
        torch.zeros(1, 3, 2),
        torch.ones(1, 3, dtype=torch.bool),
        torch.ones(1, 3, 3),
        "bradley-terry",
    ),
    "counts of other clusters": lambda: resampled_ratios(np.zeros((3, 1)), np.ones((4, 1))),
    "p-values in a table": lambda: holm(np.zeros((2, 2)), 0.05),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=list(WRONG))
def test_a_wrong_shape_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        call()


def test_scores_of_pairs_broadcast() -> None:
    column, row = torch.zeros(2, 1), torch.zeros(1, 3)
    assert expected_log(column, column, row, row).shape == (2, 3)


@pytest.mark.parametrize("name", shape_checks.MODULES)
def test_every_listed_module_is_checked(name: str) -> None:
    module = importlib.import_module(name)
    functions = [value for value in vars(module).values() if getattr(value, "__module__", None) == name]
    assert any(hasattr(function, "__wrapped__") for function in functions if not isinstance(function, type))


def test_product_code_needs_no_checker() -> None:
    code = "import sys, editloop.training.editor_rl.nft; sys.exit('beartype' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
